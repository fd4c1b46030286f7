"""Intensities of a configuration: nnU-Net's own, or those of the encoder's pretraining."""

from typing import Any

from nnunet_fm.encoders.contract import Z_SCORE, Z_SCORE_EVERYWHERE, ZERO_TO_ONE
from nnunet_fm.nnunet.plan_options import Intensity

NORMALISATIONS = {  # of an encoder -> nnU-Net's scheme, without a mask
    Z_SCORE_EVERYWHERE: "ZScoreNormalization",
    ZERO_TO_ONE: "RescaleTo01Normalization",
}


def set_intensities(
    configuration: dict[str, Any], stock: dict[str, Any], pretrained: str, intensity: Intensity
) -> list[str]:
    """Normalise as the encoder's pretraining did, if nnU-Net does not.

    Such a configuration needs data of its own, so its `data_identifier` changes too.

    Args:
        configuration: the one to change.
        stock: the configuration that it inherits from, resolved.
        pretrained: intensities of the encoder's pretraining.
        intensity: `encoder`, or `stock` to keep nnU-Net's.

    Returns:
        What to report to the user, one line each.
    """
    if pretrained == Z_SCORE:
        return []
    scheme = NORMALISATIONS.get(pretrained)
    if scheme is None or intensity == "stock":
        reason = "" if scheme else ", which nnU-Net does not have"
        return [
            f"intensities as nnU-Net has them; the encoder was pretrained on {pretrained}{reason}"
        ]
    count = len(stock["normalization_schemes"])
    schemes = {
        "normalization_schemes": [scheme] * count,
        "use_mask_for_norm": [False] * count,
    }
    if all(stock[key] == value for key, value in schemes.items()):
        return []
    data = configuration.get("data_identifier", stock["data_identifier"])
    configuration |= schemes
    configuration["data_identifier"] = f"{data}_{pretrained.replace(' ', '_')}"
    return [
        f"intensities {pretrained}, as in the encoder's pretraining: {scheme}, no mask "
        "(for nnU-Net's own: --intensity stock)"
    ]
