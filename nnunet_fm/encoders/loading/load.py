"""The strict loader: a file becomes an encoder, or an error that names the tensors in the way."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_fm.encoders.cards import bundled_weights, get_card
from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.encoders.key_format import Converted, KeyFormat
from nnunet_fm.encoders.loading.hub import fetch
from nnunet_fm.encoders.loading.identify import (
    SAY_WHICH,
    closest,
    identify,
    nearest_by_shapes,
    reads_format,
)
from nnunet_fm.encoders.loading.load_report import LoadReport, tensors_sha256
from nnunet_fm.encoders.loading.metadata import embedded_card
from nnunet_fm.encoders.loading.read import (
    PREFIXES,
    CheckpointError,
    Unwrapped,
    read_tensors,
    unwrap,
)
from nnunet_fm.encoders.loading.shapes import options_of
from nnunet_fm.encoders.registry import (
    ARCHITECTURES,
    CARDS,
    KEY_FORMATS,
    Architecture,
    build_encoder,
    find_architecture,
    known_architecture,
)
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.files import files_sha256
from nnunet_fm.internal.hub_address import HubAddress, is_hub_address
from nnunet_fm.internal.messages import some


def load_encoder(
    path: str | Path, card: str | None = None, **build: Any
) -> tuple[Encoder, LoadReport]:
    """Build the encoder that a file holds and fill it, strictly.

    Args:
        path: `.pth`, `.pt`, `.bin` (tensors only) or `.safetensors`; the name of bundled weights;
            or `hf://OWNER/NAME[@REVISION][/FILE]`, see `hub.fetch`.
        card: name of a weight card or architecture; found from the file if None.
        **build: `taps`, or options that replace the card's.

    Returns:
        The encoder in evaluation mode, frozen, and the report of what was done.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: a tensor is missing, unexpected, of another shape or not finite, unless the
            card lists it.
        InputError: unknown card.

    Example:
        >>> encoder, report = load_encoder("synth_vitt16")
        >>> report.card, report.parameters
        ('synth_vitt16.v1', 5519232)
    """
    bundled = bundled_weights(str(path))
    if bundled is not None:
        path, bundled_card = bundled
        card = card or bundled_card.name
    fetched = fetch(str(path)) if is_hub_address(str(path)) else None
    if fetched is not None:
        path = fetched.path
    file = _WeightFile.read(Path(path), _own_format(card, build))
    chosen, reason = _choose_card(file, card, fetched.address if fetched else None)
    converted = file.converted
    _return_unknown_heads(file, chosen)
    architecture = known_architecture(chosen.architecture)
    carried = _carried(file, chosen, architecture)
    _refuse_changes(
        file.path.name, {k: carried[k] for k in architecture.fixed if k in carried}, build
    )
    known = {**options_of(chosen, converted.tensors), **carried, **converted.options}
    options = {k: v for k, v in {**known, **build}.items() if k != "taps"}
    if architecture.adapt is not None:
        try:
            architecture.adapt(converted, options)
        except InputError as error:
            raise CheckpointError(f"{file.path.name}: {error}") from None
    encoder = build_encoder(chosen.architecture, build.get("taps"), **options)
    _check_dimensions(chosen, encoder)
    _check(file.path.name, encoder, converted, chosen)
    missing = _fill(encoder, converted)
    return encoder, LoadReport(
        file=str(fetched.address if fetched else file.path.absolute()),
        file_sha256=_checked_file_sha256(file.path, chosen),
        card=chosen.name,
        architecture=chosen.architecture,
        options=options,
        containers=file.unwrapped.containers,
        prefixes=file.unwrapped.prefixes,
        format=file.format,
        matched=len(converted.tensors),
        parameters=sum(p.numel() for p in encoder.parameters()),
        dropped=converted.dropped,
        missing=missing,
        sha256=tensors_sha256(encoder.state_dict()),
        chosen_because=reason,
        about=file.about,
        licence=fetched.licence if fetched else "",
        unverified=chosen.unverified,
    )


@dataclass
class _WeightFile:
    """A file that was read, with its tensors in the names of our encoders.

    Attributes:
        path: of the file.
        about: the card that the file carries, if any.
        unwrapped: the flat state dict in the names of the file.
        format: name of its key format.
        converted: the same in our names, without `heads`.
        heads: tensors that some card lists as not the encoder's.
    """

    path: Path
    about: dict[str, Any]
    unwrapped: Unwrapped
    format: str
    converted: Converted
    heads: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path, own: KeyFormat | None) -> "_WeightFile":
        content = read_tensors(path)
        unwrapped = unwrap(content, own)
        found = unwrapped.format
        if found is None:
            raise CheckpointError(_unknown_format(path, unwrapped.tensors))
        heads = {} if found is own else _heads(unwrapped.tensors)
        inside = {key: v for key, v in unwrapped.tensors.items() if key not in heads}
        try:
            converted = found.convert(inside)
        except InputError as error:
            raise CheckpointError(f"{path.name}: {error}") from None
        converted.dropped |= unwrapped.dropped
        about = embedded_card(path, content)
        return cls(path, about, unwrapped, found.name, converted, heads)


def _carried(file: _WeightFile, card: WeightCard, architecture: Architecture) -> dict[str, Any]:
    """Return the options that an exported file says of itself, if it is of this architecture."""
    told = file.about.get("options")
    if file.about.get("architecture") != card.architecture or not isinstance(told, Mapping):
        return {}
    return {name: told[name] for name in architecture.carried if name in told}


def _refuse_changes(file: str, fixed: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise CheckpointError for options that belong to the weights, with other values."""
    for name, value in fixed.items():
        if name in given and json.dumps(given[name]) != json.dumps(value):
            raise CheckpointError(
                f"{file}: {name}={given[name]} was given, and its weights were trained with "
                f"{name}={value}; omit the option"
            )


def _choose_card(
    file: _WeightFile, card: str | None, hub: HubAddress | None
) -> tuple[WeightCard, str]:
    """Return the card of a file and the reason for choosing it."""
    if card:
        named = get_card(card)
        _check_format(file, named)
        return named, "named"
    carried = file.about.get("card")
    if carried in {*CARDS, *ARCHITECTURES}:  # never a class that the file names
        return get_card(str(carried)), "the card in the file"
    return identify(file.path, file.converted, file.unwrapped.containers, hub, file.format)


def _check_format(file: _WeightFile, card: WeightCard) -> None:
    """Raise CheckpointError for a file in the names of other authors than the card's."""
    if reads_format(card, file.format):
        return
    raise CheckpointError(
        f"{file.path.name} has the names of format {file.format}, and {card.name} is "
        f"published in {' or '.join(card.formats)}: it is another encoder. Name the architecture "
        f"(--card {card.architecture}), or omit --card"
    )


def _return_unknown_heads(file: _WeightFile, card: WeightCard) -> None:
    """Drop the heads that the card lists; keep the others, which the check then refuses."""
    for key, tensor in file.heads.items():
        if _matches(card.ignored, key):
            published = any(_matches(known.ignored, key) for known in CARDS.values())
            reason = "pretraining head" if published else "head of a fine-tuning"
            file.converted.dropped[key] = reason
        else:
            file.converted.tensors[key] = tensor


def _own_format(card: str | None, build: Mapping[str, Any]) -> KeyFormat | None:
    """Return how files name the tensors of the architecture that the user names, if it says so."""
    architecture = None if card is None or card in CARDS else find_architecture(card)
    if architecture is None or architecture.key_format is None:
        return None
    return architecture.key_format(build_encoder(architecture.name, **build))


def _heads(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a card lists as not the encoder's; identification disregards it."""
    patterns = {p for card in CARDS.values() for p in card.ignored}
    patterns |= {p for architecture in ARCHITECTURES.values() for p in architecture.ignored}
    return {k: v for k, v in state.items() if k != "mask_token" and _matches(patterns, k)}


def _matches(patterns: Iterable[str], key: str) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def _unknown_format(path: Path, state: Mapping[str, Tensor]) -> str:
    return (
        f"{path.name}: keys such as {some(sorted(state))} are in no known format. Nearest by "
        f"shapes: {nearest_by_shapes(state)}. Allowed: {', '.join(KEY_FORMATS)}, below any of the "
        f"prefixes {', '.join(PREFIXES)}"
    )


def _checked_file_sha256(path: Path, card: WeightCard) -> str:
    found = files_sha256([path])
    if card.sha256 not in (None, found):
        raise CheckpointError(
            f"{path.name} is not the published {card.name}: SHA-256 {found}, not {card.sha256}"
        )
    return found


def _check_dimensions(card: WeightCard, encoder: Encoder) -> None:
    dims = encoder.input_spec.spatial_dims
    if card.name in CARDS and card.spatial_dims != dims:
        raise InputError(
            f"weight card {card.name} says spatial_dims={card.spatial_dims}, and its architecture "
            f"{card.architecture} has {dims}; name another card, or omit options that change it"
        )


def _check(name: str, encoder: Encoder, converted: Converted, card: WeightCard) -> None:
    """Raise CheckpointError with everything that does not fit, in one message."""
    expected = encoder.state_dict()
    given = converted.tensors
    shared = [key for key in expected if key in given]
    missing = [k for k in expected if k not in given and k not in card.allowed_missing]
    unexpected = [key for key in given if key not in expected]
    shapes = [
        f"{key} {list(given[key].shape)} where {list(expected[key].shape)} is expected"
        for key in shared
        if given[key].shape != expected[key].shape
    ]
    no_reals = [
        f"{key} ({str(given[key].dtype).removeprefix('torch.')})"
        for key in shared
        if expected[key].is_floating_point() and not given[key].is_floating_point()
    ]
    not_finite = [
        k for k, v in given.items() if v.is_floating_point() and not torch.isfinite(v).all()
    ]
    problems = {
        "tensors missing": missing,
        "tensors unexpected": unexpected,
        "of another shape": shapes,
        "integer or complex, where floating-point is expected": no_reals,
        "not finite (NaN or infinite)": not_finite,
    }
    sentences = [f"{len(keys)} {what}: {some(keys)}" for what, keys in problems.items() if keys]
    if sentences:
        advice = ""
        if missing or shapes:
            advice = _advice(card, converted)
        elif unexpected:
            advice = _advice_on_heads(card, unexpected) or _advice(card, converted)
        raise CheckpointError(f"{name} does not fit {card.name}. {'; '.join(sentences)}.{advice}")


def _advice(card: WeightCard, converted: Converted) -> str:
    better, different = closest(converted.tensors)
    if different or better.architecture == card.architecture:
        return (
            " If the file is incomplete, download it again. Otherwise it belongs to another "
            f"encoder: see `nnunet-fm encoders list`, and name its card ({SAY_WHICH})."
        )
    return f" Its tensors are those of {better.architecture}."


def _advice_on_heads(card: WeightCard, unexpected: Sequence[str]) -> str:
    """Explain a file that holds the encoder and heads which only its architecture lists."""
    bare = get_card(card.architecture)
    if bare == card or not all(_matches(bare.ignored, key) for key in unexpected):
        return ""
    return (
        " The encoder is complete, and these are heads of another training: the file was trained "
        f"further, for a task, and is not the published {card.name}. To use it as it is (it has "
        f"seen the patients of that task): --card {bare.name}. For the published file: "
        f"nnunet-fm encoders show {card.name}"
    )


def _fill(encoder: Encoder, converted: Converted) -> list[str]:
    """Copy the tensors, freeze the encoder, and return the names of those that were missing."""
    missing = [key for key in encoder.state_dict() if key not in converted.tensors]
    encoder.load_state_dict({k: v.float() for k, v in converted.tensors.items()}, strict=False)
    encoder.requires_grad_(False).eval()
    return missing
