"""DINOv3's ConvNeXt written plainly from its definition: an independent oracle for the adapter.

Takes Meta's parameter names. Nothing of timm, of transformers or of nnunet_fm is used.
"""

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]
EPS = 1e-6


def features(state: State, image: Tensor) -> tuple[list[Tensor], Tensor]:
    """The maps (batch, channels, rows, columns) of all stages, the last one normed, and the CLS."""
    maps = []
    x = image
    for stage in range(4):
        x = _reduced(state, x, stage)
        block = 0
        while f"stages.{stage}.{block}.gamma" in state:
            x = _block(state, x, f"stages.{stage}.{block}")
            block += 1
        maps.append(x)
    cls = _norm(state, "norm", x.mean((2, 3), keepdim=True))[:, :, 0, 0]
    maps[-1] = _norm(state, "norm", x)
    return maps, cls


def _reduced(state: State, x: Tensor, stage: int) -> Tensor:
    """A quarter of the sides and a norm before the first stage; a norm and half of them later."""
    first, second = (f"downsample_layers.{stage}.{n}" for n in (0, 1))
    if stage == 0:
        patches = functional.conv2d(x, state[f"{first}.weight"], state[f"{first}.bias"], stride=4)
        return _norm(state, second, patches)
    weight, bias = state[f"{second}.weight"], state[f"{second}.bias"]
    return functional.conv2d(_norm(state, first, x), weight, bias, stride=2)


def _block(state: State, x: Tensor, name: str) -> Tensor:
    """A depthwise 7x7 convolution, a norm, an MLP of every pixel, a scale; added to the input."""
    weight, bias = state[f"{name}.dwconv.weight"], state[f"{name}.dwconv.bias"]
    y = functional.conv2d(x, weight, bias, padding=3, groups=x.shape[1])
    y = torch.einsum(
        "bchw,dc->bdhw", _norm(state, f"{name}.norm", y), state[f"{name}.pwconv1.weight"]
    )
    y = functional.gelu(y + state[f"{name}.pwconv1.bias"][:, None, None])
    y = torch.einsum("bchw,dc->bdhw", y, state[f"{name}.pwconv2.weight"])
    y = y + state[f"{name}.pwconv2.bias"][:, None, None]
    return x + y * state[f"{name}.gamma"][:, None, None]


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    """LayerNorm over the channels of every pixel."""
    centred = x - x.mean(1, keepdim=True)
    normed = centred / (centred.square().mean(1, keepdim=True) + EPS).sqrt()
    return normed * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]


def random_state(depths: tuple[int, ...], widths: tuple[int, ...]) -> State:
    """Weights of ordinary size in Meta's names, with the second copy of the final norm."""
    generator = torch.Generator().manual_seed(5)

    def drawn(*shape: int, around: float = 0.0) -> Tensor:
        fan_in = max(1, torch.Size(shape[1:]).numel())
        spread = 0.3 if len(shape) == 1 else fan_in**-0.5
        return around + spread * torch.randn(shape, generator=generator)

    state: State = {}

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        state[f"{name}.weight"] = drawn(*shape, around=around)
        state[f"{name}.bias"] = drawn(shape[0])

    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        before = 3 if stage == 0 else widths[stage - 1]
        convolution, norm = (0, 1) if stage == 0 else (1, 0)
        side = 4 if stage == 0 else 2
        add(f"downsample_layers.{stage}.{convolution}", width, before, side, side)
        add(f"downsample_layers.{stage}.{norm}", width if stage == 0 else before, around=1.0)
        for block in range(depth):
            name = f"stages.{stage}.{block}"
            state[f"{name}.gamma"] = drawn(width, around=0.6)
            add(f"{name}.dwconv", width, 1, 7, 7)
            add(f"{name}.norm", width, around=1.0)
            add(f"{name}.pwconv1", 4 * width, width)
            add(f"{name}.pwconv2", width, 4 * width)
    add("norm", widths[-1], around=1.0)
    return state | {f"norms.3.{kind}": state[f"norm.{kind}"].clone() for kind in ("weight", "bias")}
