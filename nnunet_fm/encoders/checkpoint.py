"""The strict loader: a file becomes an encoder, or an error that says which tensor stands in the way."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nnunet_fm.encoders import formats
from nnunet_fm.encoders.cards import CARDS, WeightCard, get_card
from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.encoders.registry import build_encoder
from nnunet_fm.messages import some

CONTAINERS = ("teacher", "model_ema", "teacher_model", "state_dict", "model", "network_weights")
PREFIXES = ("module.", "_orig_mod.", "teacher.", "model_ema.", "backbone.", "dino_encoder.", "encoder.")
INFIXES = ("_checkpoint_wrapped_module.", "_orig_mod.", "_fsdp_wrapped_module.")


class CheckpointError(ValueError):
    """A weight file that cannot be used as it is; the message says why and what to do."""


@dataclass
class LoadReport:
    """What the loader did: shown by `nnunet-fm encoders verify`, kept in the plans."""

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
    notes: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Identity of an encoder: names, types, shapes and values of its tensors, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of the file's bytes."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def read_tensors(path: Path) -> Any:
    """The content of a `.safetensors`, `.pth`, `.pt` or `.bin` file; pickled code is never run.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: truncated, of another kind, or a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"encoder file {str(path)!r} does not exist; give the path of a .pth or .safetensors")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(f"{path.name} is no readable safetensors file ({error}); download it again") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error) or "unpickl" in str(error).lower():
            raise CheckpointError(
                f"{path.name} holds pickled objects beside tensors, which could run code, and is not opened. "
                "If you trust it, save its tensors alone: "
                "torch.save(torch.load(FILE, weights_only=False)['teacher'], 'tensors.pth'). "
                f"Details: {str(error).splitlines()[0][:200]}"
            ) from None
        raise CheckpointError(
            f"{path.name} is truncated or no PyTorch file ({type(error).__name__}: {str(error).splitlines()[0][:200]}); "
            "download it again, or give a .pth, .pt or .safetensors"
        ) from None


def unwrap(content: Any) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Take the encoder's state dict out of its containers and prefixes: (tensors, containers, prefixes)."""
    containers: list[str] = []
    while isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        name = next((c for c in CONTAINERS if isinstance(content.get(c), Mapping)), None)
        if name is None:
            raise CheckpointError(
                f"no tensors found; the file's keys are {some(list(map(str, content)))}. "
                f"Allowed: a state dict, or one under {', '.join(CONTAINERS)}"
            )
        containers.append(name)
        content = content[name]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"the file holds a {type(content).__name__}; allowed: a state dict")
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    for infix in INFIXES:
        state = {k.replace(f".{infix}", "."): v for k, v in state.items()}
    prefixes: list[str] = []
    while formats.detect(state) is None:
        prefix = next((p for p in PREFIXES if formats.detect(_inside(state, p)) or _all_inside(state, p)), None)
        if prefix is None:
            break
        prefixes.append(prefix)
        outside = {k: v for k, v in state.items() if not k.startswith(prefix)}
        state = _inside(state, prefix) | outside
    return state, containers, prefixes


def _inside(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _all_inside(state: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether `prefix` leads a large part of the keys, so that it is worth looking below it."""
    return sum(k.startswith(prefix) for k in state) * 2 > len(state) > 0


def load_encoder(path: str | Path, card: str | None = None, **build: Any) -> tuple[Encoder, LoadReport]:
    """Build the encoder that a file holds and fill it, strictly.

    Args:
        path: `.pth`, `.pt`, `.bin` (tensors only) or `.safetensors`.
        card: name of a weight card or architecture; found from the file if None.
        **build: `taps`, or options that take the place of the card's.

    Returns:
        The encoder in evaluation mode, frozen, and the report of what was done.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: any tensor missing, unexpected, of another shape or not finite, unless the card lists it.
        ValueError: unknown card.
    """
    path = Path(path)
    state, containers, prefixes = unwrap(read_tensors(path))
    known = formats.detect(state)
    if known is None:
        raise CheckpointError(
            f"{path.name}: keys such as {some(sorted(state))} are in no known format. "
            f"Allowed: {', '.join(formats.FORMATS)}, below any of the prefixes {', '.join(PREFIXES)}"
        )
    outside = {k: v for k, v in state.items() if _is_head(k)}
    converted = formats.FORMATS[known][1]({k: v for k, v in state.items() if k not in outside})
    chosen, reason = (get_card(card), "named") if card else identify(path, converted, containers)
    options = {k: v for k, v in {**chosen.options, **build}.items() if k != "taps"}
    if "q_bias" in "".join(converted.tensors) and chosen.architecture.startswith("dinov3"):
        _drop_zero_bias(converted, options)
    encoder = build_encoder(chosen.architecture, build.get("taps"), **options)
    _check(path.name, cast(nn.Module, encoder), converted, chosen)
    missing = _fill(cast(nn.Module, encoder), converted)
    return encoder, LoadReport(
        file=str(path.absolute()),
        file_sha256=file_sha256(path),
        card=chosen.name,
        architecture=chosen.architecture,
        options=options,
        containers=containers,
        prefixes=prefixes,
        format=known,
        matched=len(converted.tensors),
        parameters=sum(p.numel() for p in cast(nn.Module, encoder).parameters()),
        dropped={**converted.dropped, **dict.fromkeys(outside, "pretraining head")},
        missing=missing,
        sha256=tensors_sha256(cast(nn.Module, encoder).state_dict()),
        chosen_because=reason,
        notes=converted.notes,
    )


def _is_head(key: str) -> bool:
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
    not_finite = [k for k, v in given.items() if v.is_floating_point() and not torch.isfinite(v).all()]
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
        advice = "" if not_finite and len(problems) == 1 else _advice(converted)
        raise CheckpointError(f"{name} does not fit {card.name}. {'; '.join(problems)}.{advice}")


def _advice(converted: formats.Converted) -> str:
    fitting = [c.name for c in CARDS.values() if _fits(c, converted.tensors)]
    return f" The shapes fit {some(fitting)}: say --encoder NAME." if fitting else ""


def _fill(encoder: nn.Module, converted: formats.Converted) -> list[str]:
    missing = [k for k in encoder.state_dict() if k not in converted.tensors]
    encoder.load_state_dict({k: v.float() for k, v in converted.tensors.items()}, strict=False)
    encoder.requires_grad_(False).eval()
    return missing


def identify(path: Path, converted: formats.Converted, containers: list[str]) -> tuple[WeightCard, str]:
    """Choose the card of a file by its shapes, then by its name, its container and its rotary precision."""
    fitting = [c for c in CARDS.values() if _fits(c, converted.tensors)]
    if not fitting:
        shape = converted.tensors.get("vit.patch_embed.proj.weight")
        seen = "" if shape is None else f" (its patch embedding is {list(shape.shape)})"
        raise CheckpointError(
            f"{path.name}: no known architecture has these shapes{seen}. "
            "Say which it is: --encoder NAME, a name from `nnunet-fm encoders list` or timm/NAME"
        )
    named = [c for c in fitting if c.name.split("_")[0] in path.stem.lower() and not c.name.endswith(".trained")]
    trained = [c for c in fitting if c.name.endswith(".trained")]
    by_training_code = bool(containers) or converted.notes.get("rope_periods") == "stored bfloat16"
    if len(named) == 1:
        return named[0], "shapes and file name"
    if trained and by_training_code:
        return trained[0], "shapes, and the container or rotary periods of the training code"
    rest = named or [c for c in fitting if not c.name.endswith(".trained") and not c.ignored] or fitting
    return rest[0], "shapes"


def _fits(card: WeightCard, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the encoder of `card`, built without memory, has these names and shapes (biases set aside)."""
    expected = _shapes(card.architecture)
    given = {k: v for k, v in tensors.items() if not k.endswith(("q_bias", "v_bias"))}
    same = all(k in expected and v.shape == expected[k] for k, v in given.items())
    return same and all(k in given or k == "mask_token" for k in expected)


@cache
def _shapes(architecture: str) -> dict[str, torch.Size]:
    with torch.device("meta"):
        encoder = cast(nn.Module, build_encoder(architecture))
    return {name: tensor.shape for name, tensor in encoder.state_dict().items()}


def fingerprint(encoder: Encoder) -> list[float]:
    """Six numbers of the features of a fixed input; they tell a changed library from a changed file."""
    size = max(encoder.input_spec.divisor * 4, 64 // encoder.input_spec.divisor * encoder.input_spec.divisor)
    axes = [torch.linspace(-1, 1, size) for _ in range(encoder.input_spec.spatial_dims)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0)
    x = torch.stack([torch.sin(grid * (c + 2)) for c in range(encoder.in_channels)])[None]
    with torch.no_grad():
        last, embedded = encoder.features(x)[-1], encoder.embed(x)
    values = [last.mean(), last.std(), last.flatten()[-1], embedded.mean(), embedded.std(), embedded.flatten()[0]]
    return [round(float(v), 6) for v in values]


def describe(report: LoadReport) -> str:
    """The report in words, a line each."""
    lines = [
        f"file          {report.file}",
        f"file SHA-256  {report.file_sha256}",
        f"encoder       {report.card} ({report.architecture}), chosen by: {report.chosen_because}",
        f"options       {json.dumps(report.options)}",
        f"unwrapped     containers {report.containers or 'none'}, prefixes {report.prefixes or 'none'}",
        f"format        {report.format}",
        f"matched       {report.matched} tensors, {report.parameters:,} parameters",
        f"missing       {', '.join(report.missing) or 'none'}",
        f"dropped       {len(report.dropped)} tensors",
    ]
    reasons: dict[str, list[str]] = {}
    for key, reason in report.dropped.items():
        reasons.setdefault(reason, []).append(key)
    lines += [f"              {reason}: {some(keys)}" for reason, keys in reasons.items()]
    return "\n".join([*lines, f"tensor hash   {report.sha256}"])
