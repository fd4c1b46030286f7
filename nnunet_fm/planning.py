"""Writes the plans `FM_<encoder>`: the dataset's own nnU-Net plans plus configurations around a frozen encoder."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_fm.decoders import DECODERS
from nnunet_fm.encoders import CARDS, build_encoder
from nnunet_fm.encoders.source import describe_source
from nnunet_fm.folders import folder
from nnunet_fm.fusion import FusionSchedule
from nnunet_fm.messages import unknown
from nnunet_fm.network import FrozenEncoderNetwork
from nnunet_fm.subsets import TrainSubset

NETWORK = f"{FrozenEncoderNetwork.__module__}.{FrozenEncoderNetwork.__name__}"
STOCK_PLANS = "nnUNetPlans"
FIELDS_OF_VIEW = ("native", "fit")
NO_ENCODER = "none"


@dataclass(frozen=True)
class PlanRequest:
    """What a user asks of the planner.

    Attributes:
        base: stock configuration to inherit from; `2d`.
        encoder: weight file, architecture name for random weights, or `none` for stock nnU-Net on a subset.
        card: weight card of the file, where it cannot be told from the file.
        preset: name of a file in `plans/`; the first one for the base if None.
        patch: sides in pixels, in the place of the preset's.
        fov: `native` keeps the spacing and pads, `fit` resamples so that the patch covers the median slice.
        taps, fusion, decoder: in the place of the preset's.
        batch_size: slices per step; the stock one scaled by the pixels of a slice if None.
        seed: of random weights.
        subset: part of the training split.
        source_plans: plans to start from.
        output: identifier of the plans to write; `FM_<encoder>[_rNNN]` if None.
    """

    base: str = "2d"
    encoder: str = NO_ENCODER
    card: str | None = None
    preset: str | None = None
    patch: tuple[int, ...] | None = None
    fov: str | None = None
    taps: tuple[int, ...] | None = None
    fusion: str | None = None
    decoder: str | None = None
    batch_size: int | None = None
    seed: int = 0
    subset: TrainSubset = TrainSubset()
    source_plans: str = STOCK_PLANS
    output: str | None = None


def presets() -> dict[str, dict[str, Any]]:
    """The plan presets by name, as shipped in `plans/`."""
    return {p.stem: json.loads(p.read_text()) for p in sorted(folder("plans").glob("*.json"))}


def write_plans(preprocessed: Path, request: PlanRequest) -> tuple[Path, str]:
    """Write the plans and say in words what was written.

    Args:
        preprocessed: the dataset's folder in `nnUNet_preprocessed`.
        request: what to write.

    Returns:
        The plans file and a text for the user.

    Raises:
        FileNotFoundError: the dataset has not been planned by nnU-Net yet.
        ValueError: an impossible request; the message names what is possible.
    """
    source = preprocessed / f"{request.source_plans}.json"
    if not source.is_file():
        raise FileNotFoundError(
            f"{source} does not exist. Type `nnUNetv2_plan_and_preprocess -d ID -c {request.base}` first"
        )
    plans = json.loads(source.read_text())
    stock = _base_configuration(plans, request.base)
    plans["train_subset"] = request.subset.to_json()
    if request.encoder == NO_ENCODER:
        plans["plans_name"] = request.output or _identifier("none", request.subset)
        words = [f"stock configurations ({', '.join(plans['configurations'])}), for -tr SubsetTrainer"]
        return _save(preprocessed, plans), _summary(plans, request, words, request.base, "SubsetTrainer")
    configuration, named, words = _frozen_configuration(stock, request)
    name = "x".join(str(s) for s in dict.fromkeys(configuration["patch_size"]))
    name = f"{request.base}_fm{name}"
    plans["plans_name"] = request.output or _identifier(_short(request.encoder), request.subset)
    plans["configurations"] |= _kept(preprocessed, plans["plans_name"], named["encoder_source"]["sha256"])
    plans["configurations"][name] = configuration
    return _save(preprocessed, plans), _summary(plans, request, words, name, "FrozenDinoTrainer")


def _base_configuration(plans: dict[str, Any], base: str) -> dict[str, Any]:
    configurations = plans["configurations"]
    if base not in configurations:
        raise ValueError(unknown("configuration", base, configurations, "Plan it with nnU-Net first."))
    if len(configurations[base].get("patch_size", ())) != 2:
        raise ValueError(f"configuration {base!r} is not 2-D; the encoders here work on slices: use -c 2d")
    return dict(configurations[base])


def _frozen_configuration(
    stock: dict[str, Any], request: PlanRequest
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    preset = _preset(request)
    patch = list(request.patch or preset["patch_size"])
    patch = patch * 2 if len(patch) == 1 else patch
    named, report = describe_source(request.encoder, request.card, request.seed)
    taps = list(request.taps or preset["taps"] or [])
    arguments = {
        **named,
        "taps": taps or None,
        "fusion": request.fusion or preset["fusion"],
        "decoder": request.decoder or preset["decoder"],
    }
    FusionSchedule.parse(arguments["fusion"])
    if arguments["decoder"] not in DECODERS:
        raise ValueError(unknown("decoder", arguments["decoder"], DECODERS))
    encoder = build_encoder(named["encoder"], taps or None, **named["encoder_options"])
    arguments["taps"] = [int(f.name.split(".")[-1]) for f in encoder.feature_info]
    step = 2 ** (encoder.input_spec.divisor - 1).bit_length()
    check_patch(patch, step)
    fov = request.fov or preset["fov"]
    configuration = {
        "inherits_from": request.base,
        "patch_size": patch,
        "batch_size": request.batch_size or _scaled_batch(stock, patch),
        "architecture": {"network_class_name": NETWORK, "arch_kwargs": arguments, "_kw_requires_import": []},
        "field_of_view": fov,
    }
    words = [
        f"encoder {named['encoder_source']['card']}, "
        + ("RANDOM weights: a baseline, not a foundation model" if report is None else f"from {report.file}"),
        f"tensor hash {named['encoder_source']['sha256']}",
        f"taps {arguments['taps']}, fusion {arguments['fusion']}, decoder {arguments['decoder']}",
        f"patch {patch[0]}x{patch[1]}, batch {configuration['batch_size']}",
        _apply_field_of_view(configuration, stock, fov, request),
    ]
    seen = CARDS[named["encoder_source"]["card"]].pretrained_on if named["encoder_source"]["card"] in CARDS else ()
    if seen:
        words.append(f"pretrained on {', '.join(seen)}: keep these apart from your test cases")
    return configuration, named, words


def _preset(request: PlanRequest) -> dict[str, Any]:
    known = presets()
    name = request.preset or f"{request.base}_fm256"
    if name not in known:
        raise ValueError(unknown("preset", name, known))
    if known[name]["base"] != request.base:
        raise ValueError(f"preset {name!r} is for -c {known[name]['base']}, not -c {request.base}")
    return known[name]


def check_patch(patch: Sequence[int], step: int) -> None:
    """Raise ValueError unless both sides are positive multiples of `step`; the nearest possible ones are named."""
    if len(patch) != 2:
        raise ValueError(f"patch {'x'.join(map(str, patch))}; allowed: one side, or two")
    if any(side <= 0 or side % step for side in patch):
        below = "x".join(str(max(step, side // step * step)) for side in patch)
        above = "x".join(str(max(step, -(-side // step) * step)) for side in patch)
        raise ValueError(
            f"patch {'x'.join(map(str, patch))}: both sides must be multiples of {step}; nearest possible: "
            + " or ".join(dict.fromkeys((below, above)))
        )


def _scaled_batch(stock: dict[str, Any], patch: Sequence[int]) -> int:
    """The stock batch with as many pixels in it, at least 2."""
    return max(2, round(stock["batch_size"] * math.prod(stock["patch_size"]) / math.prod(patch)))


def _apply_field_of_view(configuration: dict[str, Any], stock: dict[str, Any], fov: str, request: PlanRequest) -> str:
    if fov not in FIELDS_OF_VIEW:
        raise ValueError(unknown("field of view", fov, FIELDS_OF_VIEW))
    spacing, size, patch = stock["spacing"], stock["median_image_size_in_voxels"], configuration["patch_size"]
    if fov == "native":
        return f"field of view native: spacing {_mm(spacing)} kept, data of {request.base} reused"
    fitted = max(s * n / p for s, n, p in zip(spacing, size, patch, strict=True))
    configuration["spacing"] = [fitted, fitted]
    configuration["median_image_size_in_voxels"] = [s * n / fitted for s, n in zip(spacing, size, strict=True)]
    label = "x".join(str(p) for p in dict.fromkeys(patch))
    configuration["data_identifier"] = f"{stock['data_identifier']}_fit{label}"
    fitted_mm = _mm(configuration["spacing"])
    return f"field of view fit: spacing {_mm(spacing)} becomes {fitted_mm}, so that the patch covers a slice"


def _mm(spacing: Sequence[float]) -> str:
    return "x".join(f"{s:.3g}" for s in spacing) + " mm"


def _identifier(encoder: str, subset: TrainSubset) -> str:
    ratio = "" if subset.ratio == 1 else f"_r{round(subset.ratio * 100):03d}"
    return f"FM_{encoder}{ratio}"


def _short(encoder: str) -> str:
    """Name for the plans: the weight file's own, or the architecture's and `random`."""
    name = Path(encoder).stem if Path(encoder).is_file() else f"{encoder}_random"
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def _kept(preprocessed: Path, identifier: str, sha256: str) -> dict[str, Any]:
    """Configurations that an earlier call wrote to the same plans.

    Raises:
        ValueError: those plans were written for another encoder.
    """
    path = preprocessed / f"{identifier}.json"
    if not path.is_file():
        return {}
    earlier = {
        name: c
        for name, c in json.loads(path.read_text())["configurations"].items()
        if c.get("architecture", {}).get("network_class_name") == NETWORK
    }
    for name, configuration in earlier.items():
        other = configuration["architecture"]["arch_kwargs"]["encoder_source"]["sha256"]
        if other != sha256:
            raise ValueError(
                f"plans {identifier} already exist for another encoder ({name}: {other[:12]}…, now {sha256[:12]}…). "
                f"Give the new ones a name: -o {identifier}_2"
            )
    return earlier


def _save(preprocessed: Path, plans: dict[str, Any]) -> Path:
    path = preprocessed / f"{plans['plans_name']}.json"
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(plans, indent=4))
    temporary.replace(path)
    return path


def _summary(plans: dict[str, Any], request: PlanRequest, words: list[str], name: str, trainer: str) -> str:
    subset, identifier = plans["train_subset"], plans["plans_name"]
    lines = [f"plans {identifier}, configuration {name}:", *(f"  {w}" for w in words)]
    if subset["ratio"] < 1:
        lines.append(
            f"  trains on {subset['ratio']:.0%} of the training cases (seed {subset['seed']}, {subset['rule']})"
        )
    lines.append("next:")
    if plans["configurations"][name].get("data_identifier", "").rpartition("_fit")[1]:
        lines.append(f"  nnUNetv2_preprocess -d {plans['dataset_name']} -plans_name {identifier} -c {name}")
    lines.append(f"  nnUNetv2_train {plans['dataset_name']} {name} 0 -tr {trainer} -p {identifier}")
    return "\n".join(lines)
