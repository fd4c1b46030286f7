"""BrainFound: DINOv2 transformers whose channels are MRI sequences and adjacent slices.

Mazher et al., arXiv:2510.23415. The paper's figure stacks T1, T2 and FLAIR of one slice as the
three channels; the abstract also speaks of sequential slices. Both are channels of the patch
embedding here: a convolution over (slices, patch, patch) that spans all slices is one over
(patch, patch) of as many channels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from nnunet_fm.encoders.families.dinov2 import REGISTERS, SIZES, SMALL, Dinov2
from nnunet_fm.encoders.families.dinov3 import PRETRAINING_HEADS
from nnunet_fm.encoders.registry import register_architecture, register_cards
from nnunet_fm.encoders.weight_card import exported_card
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

PAPER = ("T1", "T2", "FLAIR")  # the channels in the authors' figure
SLICES = (1, 3, 5)
IMAGE = 224  # pixels
CARRIED = ("sequences", "slices", "image_size")  # options in the files of `pretrain export`


class BrainFound(Dinov2):
    """A DINOv2 ViT on slabs: adjacent slices of several sequences of one session.

    The channels of a sequence are its slices from the lowest to the highest; the middle one is
    encoded. The first sequence comes first.

    Args:
        model: timm's architecture name.
        taps: tapped blocks, see `TimmViT`.
        sequences: those that the weights were trained with, as `nnunet_fm.data.sequences` names
            them; None for one sequence that may be any.
        slices: adjacent slices of each sequence, 1, 3 or 5.
        modalities: sequences that the input holds, in the order of its channels; None for all. A
            missing one is a copy of the first that is there, as in pretraining.
        **arguments: passed to `Dinov2`.

    Raises:
        InputError: unknown or repeated modalities, or another number of slices.

    Example:
        >>> import torch
        >>> encoder = BrainFound("vit_small_patch14_dinov2", depth=1, modalities=("T1", "FLAIR"))
        >>> tuple(encoder.features(torch.zeros(1, 2, 28, 28))[-1].shape)
        (1, 384, 2, 2)
    """

    def __init__(
        self,
        model: str,
        taps: Sequence[int] | None = None,
        sequences: Sequence[str] | None = PAPER,
        slices: int = 1,
        modalities: Sequence[str] | None = None,
        **arguments: Any,
    ) -> None:
        if slices not in SLICES:
            raise InputError(f"slices={slices}; allowed: {', '.join(map(str, SLICES))}")
        if sequences is None and modalities is not None:
            raise InputError(
                f"modalities={list(modalities)}: this encoder takes any one sequence; omit it"
            )
        self.sequences = None if sequences is None else tuple(sequences)
        given = modalities or sequences
        self.sources = [0] if not sequences or not given else sources_of(sequences, given)
        arguments = {"positions": "offset", "image_size": IMAGE, **arguments}
        super().__init__(model, taps, in_chans=len(self.sources) * slices, **arguments)
        self.in_channels = len(given or (None,)) * slices
        self.input_spec = self.input_spec.of_modalities(given, subsets=True).of_slices(slices)

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the CLS token after the final norm."""
        return super().embed(self._slab(x))

    def _intermediates(self, x: Tensor, **options: bool) -> list[Any]:
        return super()._intermediates(self._slab(x), **options)

    def _slab(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b s h w"]:
        """Put the sequences in the order of the weights, with copies for those that are missing."""
        by_sequence = x.unflatten(1, (-1, self.input_spec.slices))
        return by_sequence[:, self.sources].flatten(1, 2)


def sources_of(sequences: Sequence[str], given: Sequence[str]) -> list[int]:
    """Return for each sequence which of the given ones fills it: itself, or else the first of them.

    Args:
        sequences: of the weights, in order.
        given: those that are there, in the order of their channels.

    Raises:
        InputError: none is given, one is given twice, or one that is not among the sequences.

    Example:
        >>> sources_of(("T1", "T2", "FLAIR"), ("FLAIR", "T2"))
        [1, 1, 0]
    """
    others = [name for name in given if name not in sequences]
    if others or not given or len(set(given)) < len(given):
        raise InputError(unknown("modality", ", ".join(others or given), sequences, "Each once."))
    first = next(name for name in sequences if name in given)
    return [given.index(name if name in given else first) for name in sequences]


def _register() -> None:
    released = {
        f"{short}{registers}": partial(BrainFound, f"vit_{size}_patch14{registers}_dinov2")
        for short, size in SIZES.items()
        for registers in REGISTERS
    }
    small = {
        short: partial(BrainFound, "vit_small_patch14_dinov2", **sizes)  # type: ignore[arg-type]
        for short, sizes in SMALL.items()
    }
    for short, build in {**released, **small}.items():
        name = f"brainfound_{short}"
        register_architecture(name, build, PRETRAINING_HEADS, carried=CARRIED)
        # the tensors are DINOv2's; an exported file names its card
        more = {"ignored": ("mask_token", *PRETRAINING_HEADS), "by_files_alone": True}
        register_cards(exported_card(name, "brainfound", "arXiv:2510.23415", **more))


_register()
