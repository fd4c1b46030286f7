"""The encoder that a configuration of nnU-Net's plans names."""

from typing import Any

from nnunet_fm.encoders import EncoderSource

UNUSED = ", not computed (tokens off)"


def encoder_source(plans: dict[str, Any], configuration: str) -> EncoderSource | None:
    """Read the encoder source of a configuration.

    Args:
        plans: content of a plans file.
        configuration: its name, e.g. `2d_fm256`.

    Returns:
        None for stock nnU-Net and for a configuration that is not there.
    """
    return EncoderSource.from_plans(_network_arguments(plans, configuration))


def uses_tokens(plans: dict[str, Any], configuration: str) -> bool:
    """Whether the network of a configuration computes its encoder."""
    return bool(_network_arguments(plans, configuration).get("tokens", "on") == "on")


def describe_encoder(source: EncoderSource | None, tokens: bool) -> str:
    """Name the encoder's card and where its weights come from; empty without an encoder."""
    if source is None:
        return ""
    return f"{source.card} from {source.origin}" + ("" if tokens else UNUSED)


def _network_arguments(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    content = plans.get("configurations", {}).get(configuration, {})
    found: dict[str, Any] = content.get("architecture", {}).get("arch_kwargs", {})
    return found
