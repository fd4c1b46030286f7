"""Where the weights of a frozen encoder come from, as plain JSON that plans carry."""

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from nnunet_fm.encoders.cards import get_card, shipped_weights
from nnunet_fm.encoders.loading.load import load_encoder
from nnunet_fm.encoders.loading.load_report import LoadReport, tensors_sha256
from nnunet_fm.encoders.loading.read import CheckpointError
from nnunet_fm.encoders.registry import random_state
from nnunet_fm.internal.errors import InputError, MissingFileError

DEFAULT_SEED = 0


def describe_source(
    given: str,
    card: str | None = None,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], LoadReport | None]:
    """Resolve what a user typed after `--encoder` into the network arguments that name it.

    Args:
        given: path of a weight file, the card of weights that come with this package, or the name
            of an architecture for random weights.
        card: weight card of the file; found from the file if None.
        seed: of random weights; 0 if None. Other weights have none.
        options: in the place of the card's, e.g. `{"qkv_bias": True}`.

    Returns:
        `encoder`, `encoder_options` and `encoder_source` for `FrozenEncoderNetwork`, and the
        loader's report (None for random weights).

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as `load_encoder`.
    """
    if _is_path(given):
        return _described(given, card, seed, options)
    if card is not None:
        raise InputError(f"--card {card} is for a weight file, and {given} is none; leave it out")
    if shipped_weights(given):
        return _described(given, card, seed, options)
    found = get_card(given)
    seed, options = DEFAULT_SEED if seed is None else seed, {**found.options, **(options or {})}
    if found.source:
        raise InputError(
            f"{given} names published weights, which nnunet-fm does not ship: {found.source} ({found.licence}). "
            f"Give the file: --encoder FILE --card {found.name}. For random weights: --encoder {found.architecture}"
        )
    state = random_state(found.architecture, seed, **options)
    source = {"seed": seed, "card": found.name, "sha256": tensors_sha256(state)}
    return {
        "encoder": found.architecture,
        "encoder_options": options,
        "encoder_source": source,
    }, None


def _described(
    given: str, card: str | None, seed: int | None, options: dict[str, Any] | None
) -> tuple[dict[str, Any], LoadReport]:
    if seed is not None:
        raise InputError(f"a seed was given, but {given} names trained weights; leave --seed out")
    _, report = load_encoder(given, card, **(options or {}))
    source = {"file": report.file, "card": report.card, "sha256": report.sha256}
    if get_card(report.card).shipped:
        del source["file"]  # found by its card wherever the package is installed
    return {
        "encoder": report.architecture,
        "encoder_options": report.options,
        "encoder_source": source,
    }, report


def _is_path(given: str) -> bool:
    return (
        Path(given).suffix in (".pth", ".pt", ".bin", ".safetensors", ".ckpt")
        or Path(given).is_file()
    )


def load_source(
    source: dict[str, Any], architecture: str, options: dict[str, Any]
) -> dict[str, Tensor]:
    """State dict that `source` names, checked against the hash it carries.

    Raises:
        FileNotFoundError: the file has gone.
        CheckpointError: the file (or the random generator) now gives other weights.
    """
    if "seed" not in source:
        try:
            encoder, _ = load_encoder(source.get("file", source["card"]), source["card"], **options)
        except FileNotFoundError:
            raise MissingFileError(
                f"encoder file {source.get('file')!r} named by the plans has gone (tensor hash "
                f"{source['sha256'][:12]}…). "
                "Put it back, or type `nnunet-fm plan` again with the file's new path"
            ) from None
        state = cast(nn.Module, encoder).state_dict()
    else:
        state = random_state(architecture, source["seed"], **options)
    found = tensors_sha256(state)
    if found != source["sha256"]:
        raise CheckpointError(
            f"the encoder changed: {origin_of(source)} now has tensor hash {found[:12]}…, the plans were written for "
            f"{source['sha256'][:12]}…. Put the former file back, or type `nnunet-fm plan` again and train anew"
        )
    return state


def source_in_plans(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """The `encoder_source` of a configuration; empty for stock nnU-Net and for what is not there."""
    architecture = plans.get("configurations", {}).get(configuration, {}).get("architecture", {})
    return architecture.get("arch_kwargs", {}).get("encoder_source") or {}


def origin_of(source: dict[str, Any]) -> str:
    """Where the weights come from, in words."""
    if "seed" in source:
        return f"RANDOM weights, seed {source['seed']}"
    return str(source.get("file", "the weights that come with nnunet-fm"))
