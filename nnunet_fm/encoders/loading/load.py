"""The strict loader: a file becomes an encoder, or an error that says which tensor stands in the way."""

import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from nnunet_fm.encoders.cards import CARDS, get_card, shipped_weights
from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.encoders.loading import key_formats as formats
from nnunet_fm.encoders.loading.identify import closest, identify, nearest_by_shapes
from nnunet_fm.encoders.loading.load_report import LoadReport, tensors_sha256
from nnunet_fm.encoders.loading.metadata import embedded_card
from nnunet_fm.encoders.loading.read import (
    OWN_FORMAT,
    PREFIXES,
    CheckpointError,
    format_of,
    read_tensors,
    unwrap,
)
from nnunet_fm.encoders.registry import ARCHITECTURES, build_encoder, own_class
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.files import files_sha256
from nnunet_fm.internal.messages import some


def load_encoder(
    path: str | Path, card: str | None = None, **build: Any
) -> tuple[Encoder, LoadReport]:
    """Build the encoder that a file holds and fill it, strictly.

    Args:
        path: `.pth`, `.pt`, `.bin` (tensors only) or `.safetensors`; or the card of weights that
            come along.
        card: name of a weight card or architecture; found from the file if None.
        **build: `taps`, or options that take the place of the card's.

    Returns:
        The encoder in evaluation mode, frozen, and the report of what was done.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: any tensor missing, unexpected, of another shape or not finite, unless the
            card lists it.
        ValueError: unknown card.
    """
    shipped = shipped_weights(str(path))
    path, card = (shipped[0], card or shipped[1].name) if shipped else (Path(path), card)
    own = _own_names(card, build)
    content = read_tensors(path)
    about = embedded_card(path, content)
    state, containers, prefixes = unwrap(content, own)
    known = format_of(state, own)
    if known is None and (why := formats.refused(state)):
        raise CheckpointError(f"{path.name}: {why}")
    if known is None:
        raise CheckpointError(
            f"{path.name}: keys such as {some(sorted(state))} are in no known format. Nearest by shapes: "
            f"{nearest_by_shapes(state)}. Allowed: {', '.join(formats.FORMATS)}, below any of the prefixes "
            f"{', '.join(PREFIXES)}"
        )
    heads = {k for k in state if known != OWN_FORMAT and _is_head(k)}
    inside = {k: v for k, v in state.items() if k not in heads}
    converted = (
        formats.Converted(inside) if known == OWN_FORMAT else formats.FORMATS[known][1](inside)
    )
    if card:
        chosen, reason = get_card(card), "named"
    elif about.get("card") in {*CARDS, *ARCHITECTURES}:  # never a class that the file names
        chosen, reason = get_card(str(about["card"])), "the card in the file"
    else:
        chosen, reason = identify(path, converted, containers)
    for key in heads:
        if any(re.fullmatch(pattern, key) for pattern in chosen.ignored):
            converted.dropped[key] = "pretraining head"
        else:
            converted.tensors[key] = state[key]
    options = {k: v for k, v in {**chosen.options, **build}.items() if k != "taps"}
    if "q_bias" in "".join(converted.tensors) and chosen.architecture.startswith("dinov3"):
        _drop_zero_bias(converted, options)
    encoder = build_encoder(chosen.architecture, build.get("taps"), **options)
    _check(path.name, cast(nn.Module, encoder), converted, chosen)
    missing = _fill(cast(nn.Module, encoder), converted)
    found = files_sha256([path])
    if chosen.sha256 not in (None, found):
        raise CheckpointError(
            f"{path.name} is not the published {chosen.name}: SHA-256 {found}, not {chosen.sha256}"
        )
    return encoder, LoadReport(
        file=str(path.absolute()),
        file_sha256=found,
        card=chosen.name,
        architecture=chosen.architecture,
        options=options,
        containers=containers,
        prefixes=prefixes,
        format=known,
        matched=len(converted.tensors),
        parameters=sum(p.numel() for p in cast(nn.Module, encoder).parameters()),
        dropped=converted.dropped,
        missing=missing,
        sha256=tensors_sha256(cast(nn.Module, encoder).state_dict()),
        chosen_because=reason,
        about=about,
    )


def _own_names(card: str | None, build: dict[str, Any]) -> frozenset[str]:
    """Names of the tensors of a user's own encoder class."""
    if card is None or own_class(card) is None:
        return frozenset()
    return frozenset(cast(nn.Module, build_encoder(card, **build)).state_dict())


def _is_head(key: str) -> bool:
    """Whether some card knows the key as something beside the encoder; it is not looked at to find the card."""
    patterns = {p for c in CARDS.values() for p in c.ignored if p != "mask_token"}
    return any(re.fullmatch(p, key) for p in patterns)


def _drop_zero_bias(converted: formats.Converted, options: dict[str, Any]) -> None:
    """Meta's distilled models carry qkv biases that are all zero: leave them out, or say that they are not."""
    biases = [k for k in converted.tensors if k.endswith(("q_bias", "v_bias"))]
    if options.get("qkv_bias"):
        return
    non_zero = [k for k in biases if converted.tensors[k].any()]
    if non_zero:
        raise CheckpointError(
            f"the file has a non-zero qkv bias ({some(non_zero)}) and the card's model has none; "
            "dropping it would change the features. Build it with one: --option qkv_bias=true"
        )
    for key in biases:
        del converted.tensors[key]
        converted.dropped[key] = "qkv bias, zero throughout"


def _check(name: str, encoder: nn.Module, converted: formats.Converted, card: WeightCard) -> None:
    """Raise with everything that does not fit, in one message."""
    expected, given = encoder.state_dict(), converted.tensors
    missing = [k for k in expected if k not in given and k not in card.allowed_missing]
    unexpected = [k for k in given if k not in expected]
    shapes = [
        f"{k} {list(given[k].shape)} where {list(expected[k].shape)} is expected"
        for k in expected
        if k in given and given[k].shape != expected[k].shape
    ]
    not_finite = [
        k for k, v in given.items() if v.is_floating_point() and not torch.isfinite(v).all()
    ]
    problems = [
        f"{len(keys)} {what}: {some(keys)}"
        for what, keys in (
            ("tensors missing", missing),
            ("tensors unexpected", unexpected),
            ("of another shape", shapes),
            ("not finite (NaN or infinite)", not_finite),
        )
        if keys
    ]
    if problems:
        wrong_architecture = (
            "" if not (missing or unexpected or shapes) else _advice(card, converted)
        )
        raise CheckpointError(
            f"{name} does not fit {card.name}. {'; '.join(problems)}.{wrong_architecture}"
        )


def _advice(card: WeightCard, converted: formats.Converted) -> str:
    better, different = closest(converted.tensors)
    if different or better.architecture == card.architecture:
        return " Get the file anew, or say which encoder it is: --encoder NAME."
    return f" Its tensors are those of {better.architecture}."


def _fill(encoder: nn.Module, converted: formats.Converted) -> list[str]:
    missing = [k for k in encoder.state_dict() if k not in converted.tensors]
    encoder.load_state_dict({k: v.float() for k, v in converted.tensors.items()}, strict=False)
    encoder.requires_grad_(False).eval()
    return missing
