"""The encoder that a configuration of nnU-Net's plans names."""

from typing import Any

from nnunet_fm.encoders import EncoderSource


def encoder_source(plans: dict[str, Any], configuration: str) -> EncoderSource | None:
    """Read the encoder source of a configuration.

    Args:
        plans: content of a plans file.
        configuration: its name, e.g. `2d_fm256`.

    Returns:
        None for stock nnU-Net and for a configuration that is not there.
    """
    content = plans.get("configurations", {}).get(configuration, {})
    return EncoderSource.from_plans(content.get("architecture", {}).get("arch_kwargs", {}))
