"""BrainFM-MRI: one transformer on any of the sequences of a session, known by their names.

Each scan is cut into patches of its own; the names condition every norm. A sequence that is absent
is left out of the attention and of the fused map, not imputed.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from nnunet_fm.data.sequences import canonical_sequence
from nnunet_fm.encoders.axes import STORED, Turn
from nnunet_fm.encoders.contract import (
    Encoder,
    FeatureInfo,
    InputSpec,
    check_sides,
    checked_spacing,
    groups_around_blocks,
    parameters_without,
)
from nnunet_fm.encoders.families.brainfm_network import (
    ConditionalBlock,
    ConditionalViT,
    attention_mask,
)
from nnunet_fm.encoders.key_format import PROJECTORS, Converted, KeyFormat
from nnunet_fm.encoders.modality_text import HASH, ModalityText
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.taps import checked_taps, unetr_taps
from nnunet_fm.encoders.weight_card import exported_card
from nnunet_fm.internal.errors import InputError

NAMES = ("T1", "T1c", "T2", "FLAIR")
CARRIED = ("names", "text", "text_width", "image_size", "spacing")  # in files of `pretrain export`
FIXED = ("names", "text", "text_width")  # they belong to the weights
SIZES: Mapping[str, Mapping[str, Any]] = {
    "vitb16": {},
    "nano8": {
        "image_size": 48,
        "patch_size": 8,
        "hidden_size": 128,
        "mlp_dim": 512,
        "depth": 6,
        "num_heads": 4,
        "text_width": 64,
    },
    "test8": {
        "image_size": 16,
        "patch_size": 8,
        "hidden_size": 24,
        "mlp_dim": 48,
        "depth": 8,
        "num_heads": 2,
        "text_width": 16,
    },
}


class BrainFM(Encoder):
    """The transformer of BrainFM-MRI on the scans of a session, one channel each.

    A channel that is constant (such as zeros) is absent: its tokens are attended to by no other,
    and the maps are the mean over the channels that are there. If all are constant, as in an empty
    patch, all count.

    Args:
        taps: blocks whose tokens are returned, 0-based, increasing; the last block's go through the
            final norm. UNETR's taps if None.
        names: of the sequences that the weights were trained with.
        modalities: sequences of the input's channels, in order; None for `names`. With text of a
            table they must be among `names`.
        text: where the vectors of the names come from, see `ModalityText`.
        text_width: of these vectors.
        image_size: side of the cube that the positions are stored for, in voxels.
        patch_size: edge of a patch in voxels.
        hidden_size, mlp_dim, depth, num_heads: of the transformer.
        dropout: in training.
        image_orientation: of the images that it is used on, e.g. `RAS`, to turn them to the LPS of
            the pretraining; None leaves them as they are.
        spacing: size of a voxel of the pretraining in mm (z, y, x); None if unknown.

    Raises:
        InputError: taps outside the blocks, unknown or repeated modalities, an unknown orientation.

    Example:
        >>> import torch
        >>> from nnunet_fm.encoders import build_encoder
        >>> encoder = build_encoder("brainfm_test8", modalities=("T1", "FLAIR")).eval()
        >>> tuple(encoder.features(torch.randn(1, 2, 16, 24, 16))[-1].shape)
        (1, 24, 2, 3, 2)
    """

    kind = "tokens"

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        names: Sequence[str] = NAMES,
        modalities: Sequence[str] | None = None,
        text: str = HASH,
        text_width: int = 768,
        image_size: int = 128,
        patch_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        depth: int = 12,
        num_heads: int = 12,
        dropout: float = 0.0,
        image_orientation: str | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        known = checked_names("names", names)
        given = known if modalities is None else checked_names("modalities", modalities)
        self.text = ModalityText(known, text_width, text)
        self.text.check(given)  # refuses names without a vector
        if image_size % patch_size:
            raise InputError(f"image_size {image_size}; allowed: a multiple of {patch_size}")
        sizes = (hidden_size, depth, num_heads, mlp_dim, text_width, dropout)
        self.vit = ConditionalViT(image_size // patch_size, patch_size, *sizes)
        self.modalities, self.in_channels = given, len(given)
        self.taps = checked_taps(taps, depth, unetr_taps(depth))
        self.depth, self.width = depth, hidden_size
        self.turn: Turn = Turn("zyx", image_orientation, STORED)
        self.input_spec = InputSpec(
            3,
            patch_size,
            (image_size,) * 3,
            axis_order="zyx",
            orientation=STORED,
            spacing=checked_spacing(spacing),
            zero_is_absent=True,
        ).of_modalities(given, subsets=True)
        self.feature_info = [FeatureInfo(hidden_size, patch_size, f"blocks.{i}") for i in self.taps]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Return the tokens of the tapped blocks, averaged over the channels that are there.

        Raises:
            ValueError: a side of the input is not a multiple of the patch.
        """
        present = present_channels(x)
        tapped, grid = self._tapped(x, present, self.taps)
        return [self._as_map(tokens, present, grid) for tokens in tapped]

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """Return the mean of the last tokens of the channels that are there."""
        present = present_channels(x)
        (tokens,), _ = self._tapped(x, present, (self.depth - 1,))
        return _mean_over_present(tokens.unflatten(1, (x.shape[1], -1)), present).mean(1)

    def _tapped(
        self,
        x: Float[Tensor, "b c z y x"],
        present: Bool[Tensor, "b c"],
        taps: Sequence[int],
    ) -> tuple[list[Float[Tensor, "b l d"]], tuple[int, ...]]:
        """Return the tokens of all channels after the tapped blocks, and the grid."""
        check_sides(x.shape[2:], self.input_spec.divisor, "patch size")
        text = self.text.of(self.modalities).to(x.dtype).expand(len(x), -1, -1)
        by_channel, grid = self.vit.embed(self.turn.apply(x), text)
        patches = by_channel.shape[2]
        slots = torch.arange(self.in_channels, device=x.device).repeat_interleave(patches)
        slots = slots.expand(len(x), -1)
        attended = None if self.in_channels == 1 else present.repeat_interleave(patches, 1)
        return self.run_blocks(by_channel.flatten(1, 2), text, slots, attended, taps), grid

    def run_blocks(
        self,
        tokens: Float[Tensor, "b l d"],
        text: Float[Tensor, "b m w"],
        slots: Int64[Tensor, "b l"],
        attended: Bool[Tensor, "b l"] | None = None,
        taps: Sequence[int] | None = None,
    ) -> list[Float[Tensor, "b l d"]]:
        """Return tokens after the tapped blocks, the last block's after the final norm.

        Args:
            tokens: any of those of `ConditionalViT.embed`.
            text: of each scan.
            slots: for each token, which scan it belongs to.
            attended: tokens that the others may attend to; None for all.
            taps: the last block alone if None.
        """
        wanted = (self.depth - 1,) if taps is None else taps
        mask = None if attended is None else attention_mask(attended, tokens)
        tapped = []
        for number, block in enumerate(self.vit.blocks[: wanted[-1] + 1]):
            tokens = self.run_block(block, tokens, text=text, slots=slots, mask=mask)
            if number in wanted:
                tapped.append(self.vit.norm(tokens) if number == self.depth - 1 else tokens)
        return tapped

    def _as_map(
        self,
        tokens: Float[Tensor, "b l d"],
        present: Bool[Tensor, "b c"],
        grid: tuple[int, ...],
    ) -> Float[Tensor, "b d tz ty tx"]:
        fused = _mean_over_present(tokens.unflatten(1, (present.shape[1], -1)), present)
        return self.turn.undo(fused.transpose(1, 2).unflatten(2, grid))

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters except those above the last tap."""
        norm = [self.vit.norm] if self.taps[-1] < self.depth - 1 else []
        return parameters_without(self, [*self.vit.blocks[self.taps[-1] + 1 :], *norm])

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the embeddings, each block, and the final norm."""
        return groups_around_blocks(self, self.vit.blocks, self.vit.norm)

    def set_fused_attention(self, enabled: bool) -> None:
        """Use torch's fused attention: the same result with less memory."""
        for block in self.vit.blocks:
            cast(ConditionalBlock, block).attn.fused_attn = enabled


def checked_names(option: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return names as `nnunet_fm.data.sequences` spells them; other names as they are.

    Raises:
        InputError: not a list of texts, or a name twice.
    """
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    texts = [name.strip() for name in names] if listed else []
    found = tuple(canonical_sequence(name) or name for name in texts)
    if not all(found) or not found or len(set(found)) < len(found):
        raise InputError(f"{option} {names!r}; allowed: a list of one name or more, each once")
    return found


def present_channels(x: Float[Tensor, "b c z y x"]) -> Bool[Tensor, "b c"]:
    """Return which channels hold an image; all of a sample whose channels are all constant."""
    voxels = x.flatten(2)
    present = voxels.amax(2) > voxels.amin(2)
    return present | ~present.any(1, keepdim=True)


def _mean_over_present(
    tokens: Float[Tensor, "b c n d"], present: Bool[Tensor, "b c"]
) -> Float[Tensor, "b n d"]:
    weights = present.to(tokens.dtype) / present.sum(1, keepdim=True)
    return torch.einsum("bcnd,bc->bnd", tokens, weights)


def _is_brainfm(state: Mapping[str, Tensor]) -> bool:
    return "vit.blocks.0.norm1.scale.weight" in state and "text.table" in state


def _register() -> None:
    register_key_format(KeyFormat("BrainFM-MRI", _is_brainfm, lambda state: Converted(dict(state))))
    for size, arguments in SIZES.items():
        name = f"brainfm_{size}"
        register_architecture(
            name, partial(BrainFM, **arguments), PROJECTORS, carried=CARRIED, fixed=FIXED
        )
        more = {"ignored": PROJECTORS, "spatial_dims": 3}
        register_cards(
            exported_card(name, "brainfm", "BrainFM-MRI, see docs/pretraining.md", **more)
        )


_register()
