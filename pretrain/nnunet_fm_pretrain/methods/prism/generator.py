"""The generator of PRISM: from the joined map to an image, plainly or in a drawn style."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm_pretrain.methods.self_distillation import exact_dtype

STEPS = 5  # of upsampling
SMALLEST = 1e-8  # of a sum of squares


class Decoder(nn.Module):
    """Five convolutions, each followed by upsampling, and a linear combination of the channels.

    There are no skip connections: everything that the image shows has passed the deepest map.

    The paper has transposed convolutions, the authors' code interpolates; interpolation cannot vary
    within a cell of 32 x 32 x 32 voxels, except between neighbouring cells.

    Args:
        width: channels of the deepest map, 16 times those of the image's resolution.
        transposed: double the size by transposed convolutions, or trilinearly.

    Example:
        >>> import torch
        >>> tuple(Decoder(64)(torch.zeros(2, 64, 1, 1, 1)).shape)
        (2, 1, 32, 32, 32)
    """

    def __init__(self, width: int, transposed: bool = True) -> None:
        super().__init__()
        made = [max(width // 2 ** (n + 1), width // 16) for n in range(STEPS)]
        self.widths = [width, *made[:-1]]
        pairs = zip(self.widths, made, strict=True)
        self.steps = nn.ModuleList(DecoderStep(*pair, transposed) for pair in pairs)
        self.image = nn.Conv3d(made[-1], 1, 1)

    def forward(
        self, x: Float[Tensor, "b d i j k"], scales: list[Tensor] | None = None
    ) -> Float[Tensor, "b 1 x y z"]:
        """Decode a map.

        Args:
            x: the map.
            scales: of the channels that each step reads, for a style; None for a plain image.
        """
        for number, step in enumerate(self.steps):
            x = step(x, None if scales is None else scales[number])
        image: Tensor = self.image(x)
        return image


class DecoderStep(nn.Module):
    """A convolution, whose kernel a style may scale, and upsampling.

    Each channel of a sample is normalised over space, without learned scale and offset, as in the
    authors' code. With GroupNorm, the offsets soon drowned what differs between samples, and every
    image became the same.
    """

    def __init__(self, given: int, made: int, transposed: bool) -> None:
        super().__init__()
        self.conv = nn.Conv3d(given, made, 3, padding=1, bias=False)
        self.norm = nn.InstanceNorm3d(made)
        self.activation = nn.LeakyReLU()
        self.grow: nn.Module = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
        if transposed:
            self.grow = nn.ConvTranspose3d(made, made, 2, stride=2)

    def forward(
        self, x: Float[Tensor, "b d i j k"], scale: Float[Tensor, "b d"] | None = None
    ) -> Float[Tensor, "b e x y z"]:
        """Double the size of a map."""
        mixed = self.conv(x) if scale is None else modulated(x, scale, self.conv)
        if mixed[0, 0].numel() > 1:  # InstanceNorm of a single cell is always 0
            mixed = self.norm(mixed)
        grown: Tensor = self.grow(self.activation(mixed))
        return grown


def modulated(
    x: Float[Tensor, "b d i j k"], scale: Float[Tensor, "b d"], conv: nn.Conv3d
) -> Float[Tensor, "b e i j k"]:
    """Convolve with a kernel whose input channels are scaled, and whose norm is then made 1.

    That is the modulated convolution of StyleGAN2 (Karras et al. 2020, equations 1 and 3): scaling
    the kernel's input channels is scaling the input, and its norm divides the output.
    """
    exact = exact_dtype(conv.weight)
    scale = scale.to(exact)
    with torch.autocast(x.device.type, enabled=False):
        squares = conv.weight.to(exact).square().sum((2, 3, 4))  # (e, d)
        norm = torch.rsqrt(scale.square() @ squares.T + SMALLEST)
    result: Tensor = conv(x * _over_space(scale).to(x.dtype))
    return result * _over_space(norm).to(result.dtype)


class Style(nn.Module):
    """The P-space: a drawn vector becomes a style.

    A style changes the map of the sequence's branch, and scales the convolutions of the decoder.

    Args:
        decoder: that is scaled.
        width: of the vectors and of the sequence's map.
        depth: layers of the mapping.
    """

    def __init__(self, decoder: Decoder, width: int, depth: int) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)]
        self.mapping = nn.Sequential(*layers)
        self.mix = nn.Conv3d(2 * width, width, 1)
        scales = [nn.Linear(width, channels) for channels in decoder.widths]
        for scale in scales:
            nn.init.ones_(scale.bias)  # all channels count alike at the start
        self.scales = nn.ModuleList(scales)

    def forward(self, drawn: Float[Tensor, "b w"]) -> Float[Tensor, "b w"]:
        """Map drawn vectors, whose length does not matter, to styles."""
        length = torch.rsqrt(drawn.square().mean(1, keepdim=True) + SMALLEST)
        style: Tensor = self.mapping(drawn * length)
        return style

    def restyled(
        self, sequence: Float[Tensor, "b w i j k"], style: Float[Tensor, "b w"]
    ) -> Float[Tensor, "b w i j k"]:
        """Mix a style into the map of the sequence's branch."""
        spread = _over_space(style).to(sequence.dtype).expand_as(sequence)
        mixed: Tensor = self.mix(torch.cat([sequence, spread], 1))
        return mixed

    def scales_of(self, style: Float[Tensor, "b w"]) -> list[Tensor]:
        """Return the scale of each step's channels."""
        return [scale(style) for scale in self.scales]


def _over_space(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d 1 1 1"]:
    return x[:, :, None, None, None]
