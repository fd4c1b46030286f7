"""Sizes of the input of a network, and of its encoder."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nnunet_fm.encoders import Encoder
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


def doublings_of(encoder: Encoder, scale: int) -> int:
    """Return the number of doublings from the tokens, or the coarsest map, to the image.

    Args:
        encoder: the encoder.
        scale: how many times the image is enlarged for it. No map may become finer than the image.

    Raises:
        InputError: another scale than 1, 2 or 4, or one that this encoder does not allow.
    """
    spec = encoder.input_spec
    if scale == 1:
        return spec.doublings
    finest = min(info.stride for info in encoder.feature_info)
    largest = min(finest, 2 ** (spec.doublings - 1)) if spec.spatial_dims == 2 else 1
    possible = [s for s in SCALES if s <= largest]
    if scale not in possible:
        raise InputError(
            f"encoder scale {scale}; allowed for this encoder: {', '.join(map(str, possible))}"
        )
    return spec.doublings - scale.bit_length() + 1


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
