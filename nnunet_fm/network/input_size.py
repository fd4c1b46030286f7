"""Sizes of the input of a network, and of its encoder."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nnunet_fm.encoders import InputSpec
from nnunet_fm.internal.errors import InputError

SCALES = (1, 2, 4)


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


def doublings_of(spec: InputSpec, scale: int) -> int:
    """Return the number of doublings from the tokens to the image.

    Args:
        spec: of the encoder.
        scale: how many times the image is enlarged for the encoder.

    Raises:
        InputError: another scale than 1, 2 or 4, or one that this encoder does not allow.
    """
    if scale == 1:
        return spec.doublings
    doublings = spec.doublings - scale.bit_length() + 1
    if scale not in SCALES or spec.spatial_dims != 2 or doublings < 1:
        possible = [s for s in SCALES if spec.spatial_dims == 2 and s < 2**spec.doublings]
        raise InputError(
            f"encoder scale {scale}; allowed for this encoder: "
            f"{', '.join(map(str, possible or SCALES[:1]))}"
        )
    return doublings


def to_encoder_size(
    x: Float[Tensor, "b c *grid"], patch: int, step: int
) -> Float[Tensor, "b c *size"]:
    """Resize an image so that `step` of its pixels become one patch of the encoder.

    Raises:
        InputError: a side is not a multiple of `step`.
    """
    if any(side % step for side in x.shape[2:]):
        raise InputError(f"input {tuple(x.shape[2:])}: all sides must be multiples of {step}")
    if patch == step:
        return x
    size = [side // step * patch for side in x.shape[2:]]
    return functional.interpolate(
        x.float(), size, mode="bilinear", align_corners=False, antialias=True
    )
