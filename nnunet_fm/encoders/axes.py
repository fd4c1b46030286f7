"""Orders and directions of the spatial axes of volumes."""

from jaxtyping import Float
from torch import Tensor

from nnunet_fm.internal.errors import InputError

STORED = "LPS"  # of volumes as `nnunet_fm.data.volumes` turns them, and so of all stores
PAIRS = ("RL", "AP", "SI")  # opposite directions, along x, y and z of nibabel's arrays


def reverse_axes(x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c k j i"]:
    """Reverse the spatial axes: (z, y, x) to (x, y, z), and back."""
    return x.permute(0, 1, 4, 3, 2)


class Turn:
    """From nnU-Net's arrays to the axes that weights were pretrained on, and back.

    nnU-Net's axes are those of the image file in reverse: (z, y, x) of what nibabel reads as
    (x, y, z), in whatever direction the file stores them.

    Args:
        axis_order: order of the axes in pretraining, in nibabel's names, e.g. `xyz`.
        stored: directions of the file's axes as `nibabel.aff2axcodes` names them, e.g. `LPS`; None
            if the images lie as those of the pretraining.
        pretrained: directions in the pretraining, e.g. `RAS`.

    Raises:
        InputError: `stored` is not an orientation.
    """

    def __init__(self, axis_order: str, stored: str | None = None, pretrained: str = "RAS") -> None:
        stored = checked_orientation(pretrained if stored is None else stored)
        letters = [pretrained["xyz".index(axis)] for axis in axis_order]
        places = [_place(stored, letter) for letter in letters]
        self.order = (0, 1, *(4 - place for place in places))
        self.flipped = [
            2 + n
            for n, (place, letter) in enumerate(zip(places, letters, strict=True))
            if stored[place] != letter
        ]
        self.inverse = [self.order.index(axis) for axis in range(5)]

    def apply(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c i j k"]:
        """Turn nnU-Net's array to the axes of the pretraining."""
        turned = x.permute(self.order)
        return turned.flip(self.flipped) if self.flipped else turned

    def undo(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c z y x"]:
        """Turn a map back to nnU-Net's axes."""
        turned = x.flip(self.flipped) if self.flipped else x
        return turned.permute(self.inverse)


def checked_orientation(code: str) -> str:
    """Return three letters in upper case.

    Raises:
        InputError: not one of each pair of directions.
    """
    upper = str(code).upper()
    if len(upper) != 3 or any(sum(letter in upper for letter in pair) != 1 for pair in PAIRS):
        raise InputError(
            f"image_orientation {code!r}; allowed: three letters, one of each of R/L, A/P and S/I, "
            "as nibabel.aff2axcodes names the axes of a file, e.g. LPS for BraTS"
        )
    return upper


def _place(stored: str, letter: str) -> int:
    """Return the axis of a file that runs along the direction `letter` or against it."""
    pair = next(pair for pair in PAIRS if letter in pair)
    return next(place for place, found in enumerate(stored) if found in pair)
