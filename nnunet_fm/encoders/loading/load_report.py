"""What the loader reports: an encoder's identity, how it was obtained, and feature statistics."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.internal.messages import some


@dataclass
class LoadReport:
    """What the loader did: shown by `nnunet-fm encoders verify` and `nnunet-fm plan`."""

    file: str
    file_sha256: str
    card: str
    architecture: str
    options: dict[str, Any]
    containers: list[str]
    prefixes: list[str]
    format: str
    matched: int
    parameters: int
    dropped: dict[str, str]
    missing: list[str]
    sha256: str = ""
    chosen_because: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    licence: str = ""  # that a repository of the Hub states
    unverified: str = ""  # what could not be checked against the authors' code


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Return a hash of names, types, shapes and values of tensors, independent of the file."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(encoder: Encoder) -> list[float]:
    """Return six statistics of the features of a fixed input.

    They distinguish a changed library from a changed file.
    """
    divisor = encoder.input_spec.divisor
    size = max(4 * divisor, 64 // divisor * divisor)
    axes = [torch.linspace(-1, 1, size) for _ in range(encoder.input_spec.spatial_dims)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0)
    x = torch.stack([torch.sin(grid * (c + 2)) for c in range(encoder.in_channels)])[None]
    with torch.no_grad():
        last = encoder.features(x)[-1]
        embedded = encoder.embed(x)
    values = [
        last.mean(),
        last.std(),
        last.flatten()[-1],
        embedded.mean(),
        embedded.std(),
        embedded.flatten()[0],
    ]
    return [round(float(v), 6) for v in values]


def describe(report: LoadReport) -> str:
    """Format the report for printing."""
    lines = [
        f"file          {report.file}",
        f"file SHA-256  {report.file_sha256}",
        f"encoder       {report.card} ({report.architecture}), chosen by: {report.chosen_because}",
        f"options       {json.dumps(report.options)}",
        f"unwrapped     containers {report.containers or 'none'}, "
        f"prefixes {report.prefixes or 'none'}",
        f"format        {report.format}",
        f"matched       {report.matched} tensors, {report.parameters:,} parameters",
        f"missing       {', '.join(report.missing) or 'none'}",
        f"dropped       {len(report.dropped)} tensors",
    ]
    if report.licence:
        lines.append(f"licence       {report.licence}, as the repository states")
    if report.unverified:
        lines.append(f"unverified    {report.unverified}")
    reasons: dict[str, list[str]] = {}
    for key, reason in report.dropped.items():
        reasons.setdefault(reason, []).append(key)
    lines += [f"              {reason}: {some(keys)}" for reason, keys in reasons.items()]
    lines += [
        f"{key:<13} {value}"
        for key, value in report.about.items()
        if isinstance(value, str | int) and key != "card"
    ]
    return "\n".join([*lines, f"tensor hash   {report.sha256}"])
