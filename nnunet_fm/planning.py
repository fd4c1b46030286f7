"""Writes the plans `FM_<encoder>`: the dataset's own nnU-Net plans plus configurations around a frozen encoder."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fm.decoders import DECODERS
from nnunet_fm.encoders import CARDS, build_encoder
from nnunet_fm.encoders.source import describe_source
from nnunet_fm.folders import folder
from nnunet_fm.fusion import FusionSchedule
from nnunet_fm.geometry import place, side_label
from nnunet_fm.messages import unknown
from nnunet_fm.network import FrozenEncoderNetwork
from nnunet_fm.subsets import TrainSubset

NETWORK = f"{FrozenEncoderNetwork.__module__}.{FrozenEncoderNetwork.__name__}"
STOCK_PLANS = "nnUNetPlans"
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
    if request.base not in plans["configurations"]:
        known = plans["configurations"]
        raise ValueError(unknown("configuration", request.base, known, "Plan it with nnU-Net first."))
    plans["train_subset"] = request.subset.to_json()
    stock = PlansManager(plans).get_configuration(request.base).configuration
    write = _stock_plans if request.encoder == NO_ENCODER else _frozen_plans
    name, words = write(plans, stock, request, preprocessed)
    trainer = "SubsetTrainer" if request.encoder == NO_ENCODER else "FrozenDinoTrainer"
    path = _save(preprocessed, plans)
    identifier = PlansManager(plans).get_configuration(name).data_identifier
    return path, _summary(plans, words, name, trainer, preprocess=not (preprocessed / identifier).is_dir())


def _stock_plans(
    plans: dict[str, Any], stock: dict[str, Any], request: PlanRequest, preprocessed: Path
) -> tuple[str, list[str]]:
    """Stock architectures; at another patch, field of view or batch size only if asked for."""
    plans["plans_name"] = request.output or _identifier("none", request.subset)
    if not (request.patch or request.fov or request.batch_size):
        return request.base, [f"stock configurations ({', '.join(plans['configurations'])}), for -tr SubsetTrainer"]
    strides = stock["architecture"]["arch_kwargs"]["strides"]
    step = max(math.prod(s[axis] for s in strides) for axis in range(len(stock["patch_size"])))
    patch = tuple(request.patch or stock["patch_size"])
    configuration, words = place(stock, request.base, patch, step, request.fov or "native", request.batch_size)
    name = f"{request.base}_stock{side_label(configuration['patch_size'])}"
    plans["configurations"][name] = configuration
    return name, ["stock architecture, for -tr SubsetTrainer", *words]


def _frozen_plans(
    plans: dict[str, Any], stock: dict[str, Any], request: PlanRequest, preprocessed: Path
) -> tuple[str, list[str]]:
    if len(stock["patch_size"]) != 2:
        raise ValueError(f"configuration {request.base!r} is not 2-D; the encoders here work on slices: use -c 2d")
    preset = _preset(request)
    named, report = describe_source(request.encoder, request.card, request.seed)
    arguments, step = _network_arguments(named, preset, request)
    patch = tuple(request.patch or preset["patch_size"])
    configuration, words = place(stock, request.base, patch, step, request.fov or preset["fov"], request.batch_size)
    configuration["architecture"] = {
        "network_class_name": NETWORK,
        "arch_kwargs": arguments,
        "_kw_requires_import": [],
    }
    name = f"{request.base}_fm{side_label(configuration['patch_size'])}"
    source = named["encoder_source"]
    plans["plans_name"] = request.output or _identifier(_short(request.encoder), request.subset)
    plans["configurations"] |= _kept(preprocessed, plans["plans_name"], source["sha256"])
    plans["configurations"][name] = configuration
    origin = "RANDOM weights: a baseline, not a foundation model" if report is None else f"from {report.file}"
    words = [
        f"encoder {source['card']}, {origin}",
        f"tensor hash {source['sha256']}",
        f"taps {arguments['taps']}, fusion {arguments['fusion']}, decoder {arguments['decoder']}",
        *words,
    ]
    if source["card"] in CARDS and CARDS[source["card"]].pretrained_on:
        seen = ", ".join(CARDS[source["card"]].pretrained_on)
        words.append(f"pretrained on {seen}: keep these apart from your test cases")
    return name, words


def _network_arguments(
    named: dict[str, Any], preset: dict[str, Any], request: PlanRequest
) -> tuple[dict[str, Any], int]:
    """Arguments of the network, checked by building its encoder, and the step that patch sides must be multiples of."""
    fusion, decoder = request.fusion or preset["fusion"], request.decoder or preset["decoder"]
    FusionSchedule.parse(fusion)
    if decoder not in DECODERS:
        raise ValueError(unknown("decoder", decoder, DECODERS))
    encoder = build_encoder(named["encoder"], request.taps or preset["taps"], **named["encoder_options"])
    taps = [int(f.name.split(".")[-1]) for f in encoder.feature_info]
    arguments = {**named, "taps": taps, "fusion": fusion, "decoder": decoder}
    return arguments, 2 ** (encoder.input_spec.divisor - 1).bit_length()


def _preset(request: PlanRequest) -> dict[str, Any]:
    known = presets()
    name = request.preset or f"{request.base}_fm256"
    if name not in known:
        raise ValueError(unknown("preset", name, known))
    if known[name]["base"] != request.base:
        raise ValueError(f"preset {name!r} is for -c {known[name]['base']}, not -c {request.base}")
    return known[name]


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


def _summary(plans: dict[str, Any], words: list[str], name: str, trainer: str, preprocess: bool) -> str:
    subset, identifier = plans["train_subset"], plans["plans_name"]
    lines = [f"plans {identifier}, configuration {name}:", *(f"  {w}" for w in words)]
    if subset["ratio"] < 1:
        lines.append(
            f"  trains on {subset['ratio']:.0%} of the training cases (seed {subset['seed']}, {subset['rule']})"
        )
    lines.append("next:")
    if preprocess:
        lines.append(f"  nnUNetv2_preprocess -d {plans['dataset_name']} -plans_name {identifier} -c {name}")
    lines.append(f"  nnUNetv2_train {plans['dataset_name']} {name} 0 -tr {trainer} -p {identifier}")
    return "\n".join(lines)
