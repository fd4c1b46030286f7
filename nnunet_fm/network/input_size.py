"""Input sizes that a network takes."""

from collections.abc import Sequence

from nnunet_fm.internal.errors import InputError


def check_patch(patch: Sequence[int], step: int, dims: int = 2) -> None:
    """Check the sides of a patch.

    Args:
        patch: sides in pixels or voxels.
        step: all sides must be multiples of it.
        dims: number of sides.

    Raises:
        InputError: another number of sides or another size; the nearest possible ones are named.
    """
    if len(patch) != dims:
        raise InputError(f"patch {'x'.join(map(str, patch))}; allowed: one side, or {dims}")
    if any(side <= 0 or side % step for side in patch):
        below = "x".join(str(max(step, side // step * step)) for side in patch)
        above = "x".join(str(max(step, -(-side // step) * step)) for side in patch)
        raise InputError(
            f"patch {'x'.join(map(str, patch))}: all sides must be multiples of {step}; "
            f"nearest possible: {' or '.join(dict.fromkeys((below, above)))}"
        )
