"""Writes the plans `FM_<encoder>`: the dataset's own nnU-Net plans plus configurations around a frozen encoder."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fm.decoders import DECODERS
from nnunet_fm.earlier_plans import keep_earlier
from nnunet_fm.encoders import CARDS, build_encoder
from nnunet_fm.encoders.cards import shipped_weights
from nnunet_fm.encoders.source import describe_source
from nnunet_fm.files import replaced_atomically
from nnunet_fm.folders import folder
from nnunet_fm.fusion import FusionSchedule
from nnunet_fm.geometry import place, side_label
from nnunet_fm.messages import unknown
from nnunet_fm.network import NETWORK, NETWORK_25D, check_decodable
from nnunet_fm.network25d import check_mix
from nnunet_fm.subsets import TrainSubset

STOCK_PLANS = "nnUNetPlans"
STACK = 8  # slices in a 2.5-D patch
NO_ENCODER = "none"


@dataclass(frozen=True)
class PlanRequest:
    """What a user asks of the planner.

    Attributes:
        base: stock configuration to inherit from; `2d`.
        encoder: weight file, architecture name for random weights, or `none` for stock nnU-Net on a subset.
        card: weight card of the file, where it cannot be told from the file.
        preset: name of a file in `plans/`; `<base>_fm256` if None.
        patch: sides in pixels, in the place of the preset's; of a 2.5-D patch the number of its slices may come first.
        fov: `native` keeps the spacing and pads, `fit` resamples so that the patch covers the median slice.
        taps, fusion, decoder: in the place of the preset's.
        batch_size: slices per step; the stock one scaled by the pixels of a slice if None.
        seed: of random weights; 0 if None.
        options: of the architecture, in the place of the card's.
        mix_slices: 1, 3 or 5 for the 2.5-D network, on stacks of slices of a 2-D configuration.
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
    seed: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    mix_slices: int | None = None
    subset: TrainSubset = TrainSubset()
    source_plans: str = STOCK_PLANS
    output: str | None = None


@dataclass(frozen=True)
class WrittenPlans:
    """Plans that were written.

    Attributes:
        path: the file.
        configuration: the one that was asked for, e.g. `2d_fm256`.
        preprocessed: whether nnU-Net has its data already.
        summary: text for the user, with the commands that come next.
    """

    path: Path
    configuration: str
    preprocessed: bool
    summary: str

    @property
    def identifier(self) -> str:
        """Name for `-p`."""
        return self.path.stem


def default_trainer(encoder: str, spatial_dims: int = 2, mix_slices: int | None = None) -> str:
    """Name for `-tr` where the user gives none."""
    if encoder == NO_ENCODER:
        return "SubsetTrainer"
    if mix_slices:
        return "FrozenDinoTrainer25D"
    return "FrozenDinoTrainer" if spatial_dims == 2 else "FrozenVolumeTrainer"


def presets() -> dict[str, dict[str, Any]]:
    """The plan presets by name, as shipped in `plans/`."""
    return {p.stem: load_json(str(p)) for p in sorted(folder("plans").glob("*.json"))}


def write_plans(preprocessed: Path, request: PlanRequest) -> WrittenPlans:
    """Write the plans.

    Args:
        preprocessed: the dataset's folder in `nnUNet_preprocessed`.
        request: what to write.

    Raises:
        FileNotFoundError: the dataset has not been planned by nnU-Net yet.
        ValueError: an impossible request; the message names what is possible.
    """
    source = preprocessed / f"{request.source_plans}.json"
    if not source.is_file():
        raise FileNotFoundError(
            f"{source} does not exist. Type `nnUNetv2_plan_and_preprocess -d ID -c {request.base}` first"
        )
    plans = load_json(str(source))
    if request.base not in plans["configurations"]:
        known = plans["configurations"]
        raise ValueError(unknown("configuration", request.base, known, "Plan it with nnU-Net first."))
    plans["train_subset"] = request.subset.to_json()
    _refuse_ignored(request)
    stock = PlansManager(plans).get_configuration(request.base).configuration
    write = _stock_plans if request.encoder == NO_ENCODER else _frozen_plans
    name, words = write(plans, stock, request)
    keep_earlier(preprocessed, plans, name)
    trainer = default_trainer(request.encoder, len(stock["patch_size"]), request.mix_slices)
    path = _save(preprocessed, plans)
    data = preprocessed / PlansManager(plans).get_configuration(name).data_identifier
    ready = _is_preprocessed(data)
    return WrittenPlans(path, name, ready, _summary(plans, words, name, trainer, preprocess=not ready))


def _refuse_ignored(request: PlanRequest) -> None:
    """Raise ValueError for what was asked and would have no effect."""
    if request.encoder != NO_ENCODER:
        return
    for name in ("card", "preset", "taps", "fusion", "decoder", "seed", "mix_slices"):
        if getattr(request, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} has no meaning with --encoder none (stock nnU-Net); leave it out"
            )


def _stock_plans(plans: dict[str, Any], stock: dict[str, Any], request: PlanRequest) -> tuple[str, list[str]]:
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


def _frozen_plans(plans: dict[str, Any], stock: dict[str, Any], request: PlanRequest) -> tuple[str, list[str]]:
    preset = _preset(request)
    named, report = describe_source(request.encoder, request.card, request.seed, request.options)
    arguments, step = _network_arguments(named, preset, request, len(stock["patch_size"]))
    patch, stack = tuple(request.patch or preset["patch_size"]), None
    if request.mix_slices:
        patch, stack = (patch[1:], patch[0]) if len(patch) == 3 else (patch, STACK)
        arguments["mix_slices"] = check_mix(request.mix_slices, stack, request.base)
    fov = request.fov or preset["fov"]
    configuration, words = place(stock, request.base, patch, step, fov, request.batch_size, stack)
    configuration["architecture"] = {
        "network_class_name": NETWORK_25D if request.mix_slices else NETWORK,
        "arch_kwargs": arguments,
        "_kw_requires_import": [],
    }
    dims = "25" if stack else len(stock["patch_size"])
    name = f"{dims}d_fm{side_label(configuration['patch_size'][1 if stack else 0 :])}"
    source = named["encoder_source"]
    plans["plans_name"] = request.output or _identifier(_short(request), request.subset)
    plans["configurations"][name] = configuration
    random = "RANDOM weights: a baseline, not a foundation model"
    origin = random if report is None else f"from {report.file} (card by {report.chosen_because})"
    words = [
        f"encoder {source['card']}, {origin}",
        f"tensor hash {source['sha256']}",
        f"taps {arguments['taps']}, fusion {arguments['fusion']}, decoder {arguments['decoder']}"
        + (f", {request.mix_slices} slices mixed" if stack else ""),
        *words,
    ]
    if source["card"] in CARDS and CARDS[source["card"]].pretrained_on:
        seen = ", ".join(CARDS[source["card"]].pretrained_on)
        words.append(f"pretrained on {seen}: keep these apart from your test cases")
    return name, words


def _network_arguments(
    named: dict[str, Any], preset: dict[str, Any], request: PlanRequest, dims: int
) -> tuple[dict[str, Any], int]:
    """Arguments of the network, checked by building its encoder, and the step that patch sides must be multiples of.

    Raises:
        ValueError: an encoder of slices for a 3-D configuration, or the reverse; a decoder that does not fit.
    """
    fusion = request.fusion or preset["fusion"]
    FusionSchedule.parse(fusion)
    encoder = build_encoder(named["encoder"], request.taps or preset["taps"], **named["encoder_options"])
    if encoder.input_spec.spatial_dims != dims:
        other = {2: "2d", 3: "3d_fullres"}[encoder.input_spec.spatial_dims]
        raise ValueError(
            f"encoder {named['encoder']} is {encoder.input_spec.spatial_dims}-D and configuration {request.base!r} "
            f"{dims}-D; allowed: a {dims}-D encoder, or -c {other}"
        )
    decoder = request.decoder or ("pyramid" if encoder.kind == "pyramid" else preset["decoder"])
    if decoder not in DECODERS:
        raise ValueError(unknown("decoder", decoder, DECODERS))
    check_decodable(encoder, named["encoder"], decoder)
    with torch.device("meta"):  # no memory; a decoder may refuse the taps
        stages = (encoder.input_spec.divisor - 1).bit_length()
        DECODERS[decoder](encoder.feature_info, 1, stages, 1)
    taps = list(getattr(encoder, "taps", None) or request.taps or ()) or None
    arguments = {**named, "taps": taps, "fusion": fusion, "decoder": decoder}
    return arguments, 2**stages


def _preset(request: PlanRequest) -> dict[str, Any]:
    known = presets()
    default = {"2d": "2d_fm256", "3d_fullres": "3d_fm128"}.get(request.base)
    if request.preset is None and default is None:
        bases = sorted({preset["base"] for preset in known.values()})
        raise ValueError(f"configuration {request.base!r} has no preset; allowed: -c {' or '.join(bases)}")
    name = str(request.preset or default)
    if name not in known:
        raise ValueError(unknown("preset", name, known))
    if known[name]["base"] != request.base:
        raise ValueError(f"preset {name!r} is for -c {known[name]['base']}, not -c {request.base}")
    return known[name]


def _identifier(encoder: str, subset: TrainSubset) -> str:
    """`FM_<encoder>`, and what sets the subset apart from the whole, the default seed and the default rule."""
    if subset.ratio == 1:
        return f"FM_{encoder}"
    seed = "" if subset.seed == TrainSubset().seed else f"_s{subset.seed}"
    rule = "" if subset.rule == TrainSubset().rule else f"_{subset.rule}"
    return f"FM_{encoder}_r{subset.percent}{seed}{rule}"


def _short(request: PlanRequest) -> str:
    """Name for the plans: the weights' own, or the architecture's with `random` and the seed if not 0."""
    file = Path(request.encoder)
    if file.is_file():
        name = file.stem
    elif shipped_weights(request.encoder):
        name = request.encoder
    else:
        name = f"{request.encoder}_random{request.seed or ''}"
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def _is_preprocessed(data: Path) -> bool:
    """Whether nnU-Net has preprocessed every case of the dataset into this folder."""
    description = data.parent / "dataset.json"
    if not description.is_file():
        return data.is_dir()
    return len(list(data.glob("*.pkl"))) >= load_json(str(description))["numTraining"]


def _save(preprocessed: Path, plans: dict[str, Any]) -> Path:
    path = preprocessed / f"{plans['plans_name']}.json"
    with replaced_atomically(str(path)) as temporary:
        save_json(plans, temporary, sort_keys=False)
    return path


def _summary(plans: dict[str, Any], words: list[str], name: str, trainer: str, preprocess: bool) -> str:
    subset, identifier = plans["train_subset"], plans["plans_name"]
    lines = [f"plans {identifier}, configuration {name}:", *(f"  {w}" for w in words)]
    if subset["ratio"] < 1:
        lines.append(
            f"  trains on {100 * subset['ratio']:g} % of the training cases (seed {subset['seed']}, {subset['rule']})"
        )
    lines.append("next:")
    dataset = int(plans["dataset_name"][len("Dataset") :][:3])  # nnUNetv2_preprocess takes nothing else
    if preprocess:
        lines.append(f"  nnUNetv2_preprocess -d {dataset} -plans_name {identifier} -c {name}")
    lines.append(f"  nnUNetv2_train {dataset} {name} 0 -tr {trainer} -p {identifier}")
    return "\n".join(lines)
