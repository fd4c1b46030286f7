"""Weights to and from the names and layouts of the BrainDINO release.

Source: BrainDINO_seg/dinov3/models/primus.py.

There the fusion is `to3`, the encoder `dino_encoder` in the official DINOv3 names, the decoder
`up_projection.decode`: transposed convolution and norm of stage i under `i.0` and `i.1`, the 1x1
head last.
"""

from collections.abc import Mapping

from torch import Tensor

from nnunet_fm.encoders.families.dinov3_keys import from_dinov3, to_dinov3
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some
from nnunet_fm.network.decoders.tokens import weight_from_convolution
from nnunet_fm.network.frozen import ENCODER

FUSION, THEIR_FUSION = "fusion.", "to3."
THEIR_ENCODER = "dino_encoder."
STAGE, HEAD, THEIR_STAGE = "decoder.stages.", "decoder.head.", "up_projection.decode."


def to_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of a `FrozenEncoderNetwork` to the release's names.

    Raises:
        ValueError: the network has parts that the release's has not (a light decoder).
    """
    foreign = [k for k in state if not k.startswith((FUSION, ENCODER, STAGE, HEAD))]
    if foreign:
        raise InputError(
            f"{some(foreign)}: the release's network has no such parts; allowed: decoder primus"
        )
    stages = 1 + max(int(k.split(".")[2]) for k in state if k.startswith(STAGE))
    converted = {
        k.replace(FUSION, THEIR_FUSION): v for k, v in state.items() if k.startswith(FUSION)
    }
    encoder = {k.removeprefix(ENCODER): v for k, v in state.items() if k.startswith(ENCODER)}
    converted |= {f"{THEIR_ENCODER}{k}": v for k, v in to_dinov3(encoder).items()}
    for key, value in state.items():
        if key.startswith(STAGE):
            number, what = key.removeprefix(STAGE).split(".", 1)
            if what == "weight":
                value = weight_to_convolution(value)
            place = f"1.{what.removeprefix('norm.')}" if what.startswith("norm.") else f"0.{what}"
            converted[f"{THEIR_STAGE}{number}.{place}"] = value
        elif key.startswith(HEAD):
            what = key.removeprefix(HEAD)
            converted[f"{THEIR_STAGE}{stages}.{what}"] = (
                value[:, :, None, None] if what == "weight" else value
            )
    return converted


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the release's network in our names and layouts.

    Raises:
        ValueError: a name is not of the release's network.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(THEIR_FUSION):
            converted[key.replace(THEIR_FUSION, FUSION)] = value
        elif key.startswith(THEIR_STAGE):
            converted |= _decoder_entry(key.removeprefix(THEIR_STAGE), value)
        elif not key.startswith(THEIR_ENCODER):
            raise InputError(
                f"{key} is not of the release's network; "
                "allowed: to3, dino_encoder, up_projection.decode"
            )
    encoder = {
        k.removeprefix(THEIR_ENCODER): v for k, v in state.items() if k.startswith(THEIR_ENCODER)
    }
    return converted | {f"{ENCODER}{k}": v for k, v in from_dinov3(encoder).tensors.items()}


def _decoder_entry(place: str, value: Tensor) -> dict[str, Tensor]:
    parts = place.split(".")
    if len(parts) == 2:  # the head
        return {f"{HEAD}{parts[1]}": value.flatten(1) if parts[1] == "weight" else value}
    number, layer, what = parts
    if layer == "1":
        return {f"{STAGE}{number}.norm.{what}": value}
    return {
        f"{STAGE}{number}.{what}": weight_from_convolution(value) if what == "weight" else value
    }


def weight_to_convolution(weight: Tensor) -> Tensor:
    """Convert the weight of an `UpStage` to the layout of a transposed convolution."""
    return weight.unflatten(0, (2, 2, -1)).permute(3, 2, 0, 1).contiguous()
