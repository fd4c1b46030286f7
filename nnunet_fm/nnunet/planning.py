"""Write plans: the dataset's own nnU-Net plans plus configurations around a frozen encoder."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fm.encoders import CARDS, bundled_weights
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.files import replaced_atomically
from nnunet_fm.internal.messages import unknown
from nnunet_fm.nnunet.datasets import dataset_id
from nnunet_fm.nnunet.encoder_in_plans import encoder_source
from nnunet_fm.nnunet.file_names import DATASET_JSON, GROUND_TRUTH
from nnunet_fm.nnunet.frozen_configuration import frozen_configuration
from nnunet_fm.nnunet.merge_plans import merge_existing_configurations
from nnunet_fm.nnunet.patch import derive_configuration, side_label
from nnunet_fm.nnunet.plan_options import NO_ENCODER, PlanOptions
from nnunet_fm.nnunet.pretraining_overlap import seen_in_pretraining
from nnunet_fm.nnunet.train_subset import TrainSubset


@dataclass(frozen=True)
class WrittenPlans:
    """Plans that were written.

    Attributes:
        path: the file.
        configuration: the new one, e.g. `2d_fm256`.
        preprocessed: whether nnU-Net has preprocessed its data already.
        summary: text for the user, with the commands to run next.
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
    """Name the trainer for `-tr` where the user gives none."""
    if encoder == NO_ENCODER:
        return "SubsetTrainer"
    if mix_slices is not None:
        return "FrozenDinoTrainer25D"
    return "FrozenDinoTrainer" if spatial_dims == 2 else "FrozenVolumeTrainer"


def write_plans(preprocessed: Path, options: PlanOptions) -> WrittenPlans:
    """Write the plans.

    Args:
        preprocessed: the dataset's folder in `nnUNet_preprocessed`.
        options: encoder, network, patch, subset and names.

    Raises:
        FileNotFoundError: the dataset has not been planned by nnU-Net yet.
        ValueError: impossible options; the message names what is possible.
    """
    source = preprocessed / f"{options.source_plans}.json"
    if not source.is_file():
        raise MissingFileError(
            f"{source} does not exist. Type `nnUNetv2_plan_and_preprocess -d ID "
            f"-c {options.configuration}` first"
        )
    plans = load_json(str(source))
    if options.configuration not in plans["configurations"]:
        known = plans["configurations"]
        raise InputError(
            unknown("configuration", options.configuration, known, "Plan it with nnU-Net first.")
        )
    plans["train_subset"] = options.subset.to_json()
    _refuse_ignored(options)
    stock = PlansManager(plans).get_configuration(options.configuration).configuration
    if options.encoder == NO_ENCODER:
        name, report = _stock_plans(plans, stock, options)
    else:
        name, report = _frozen_plans(plans, stock, options, preprocessed)
    merge_existing_configurations(preprocessed, plans, name)
    trainer = default_trainer(options.encoder, len(stock["patch_size"]), options.mix_slices)
    path = _save(preprocessed, plans)
    data = preprocessed / PlansManager(plans).get_configuration(name).data_identifier
    ready = _is_preprocessed(data)
    return WrittenPlans(
        path, name, ready, _summary(plans, report, name, trainer, preprocess=not ready)
    )


def _refuse_ignored(options: PlanOptions) -> None:
    """Raise ValueError for options that would have no effect."""
    if options.encoder != NO_ENCODER:
        return
    for name in ("card", "preset", "taps", "fusion", "decoder", "seed", "mix_slices"):
        if getattr(options, name) is not None:
            raise InputError(
                f"--{name.replace('_', '-')} has no meaning with --encoder none (stock nnU-Net); "
                "omit it"
            )


def _stock_plans(
    plans: dict[str, Any], stock: dict[str, Any], options: PlanOptions
) -> tuple[str, list[str]]:
    """Keep the stock architecture, at another patch, field of view or batch size if requested."""
    plans["plans_name"] = options.output or _identifier("none", options.subset)
    if not (options.patch or options.fov or options.batch_size):
        return options.configuration, [
            f"stock configurations ({', '.join(plans['configurations'])}), for -tr SubsetTrainer"
        ]
    strides = stock["architecture"]["arch_kwargs"]["strides"]
    step = max(math.prod(s[axis] for s in strides) for axis in range(len(stock["patch_size"])))
    patch = tuple(options.patch or stock["patch_size"])
    configuration, report = derive_configuration(
        stock, options.configuration, patch, step, options.fov or "native", options.batch_size
    )
    name = f"{options.configuration}_stock{side_label(configuration['patch_size'])}"
    plans["configurations"][name] = configuration
    return name, ["stock architecture, for -tr SubsetTrainer", *report]


def _frozen_plans(
    plans: dict[str, Any], stock: dict[str, Any], options: PlanOptions, preprocessed: Path
) -> tuple[str, list[str]]:
    """Add a configuration around a frozen encoder."""
    description = preprocessed / DATASET_JSON
    dataset = load_json(str(description)) if description.is_file() else {}
    name, configuration, report = frozen_configuration(stock, options, dataset)
    plans["plans_name"] = options.output or _identifier(_short_name(options), options.subset)
    plans["configurations"][name] = configuration
    source = encoder_source(plans, name)
    card = "" if source is None else source.card
    return name, [*report, *_pretraining_data(card, preprocessed, dataset)]


def _pretraining_data(card: str, preprocessed: Path, dataset: dict[str, Any]) -> list[str]:
    """Report what the encoder was pretrained on; warn if this dataset seems to be part of it."""
    pretrained_on = CARDS[card].pretrained_on if card in CARDS else ()
    if not pretrained_on:
        return []
    report = [f"pretrained on {', '.join(pretrained_on)}: keep these apart from your test cases"]
    first_case = next((p.name for p in sorted((preprocessed / GROUND_TRUTH).glob("*"))), "")
    title = str(dataset.get("name", ""))
    seen = seen_in_pretraining(pretrained_on, preprocessed.name, first_case, title)
    if seen:
        report.append(
            f"WARNING: {preprocessed.name} looks like {' and '.join(seen)}, on which this encoder "
            "was pretrained: it may have seen the test cases, and results may look better than "
            "they are (leakage)"
        )
    return report


def _identifier(encoder: str, subset: TrainSubset) -> str:
    """Name the plans: `FM_<encoder>`, and the subset's ratio, seed and rule where not default."""
    if subset.ratio == 1:
        return f"FM_{encoder}"
    seed = "" if subset.seed == TrainSubset().seed else f"_s{subset.seed}"
    rule = "" if subset.rule == TrainSubset().rule else f"_{subset.rule}"
    return f"FM_{encoder}_r{subset.percent}{seed}{rule}"


def _short_name(options: PlanOptions) -> str:
    """Name the encoder: its weights, or its architecture with `random` and the seed if not 0."""
    file = Path(options.encoder)
    if file.is_file():
        name = file.stem
    elif bundled_weights(options.encoder):
        name = options.encoder
    else:
        name = f"{options.encoder}_random{options.seed or ''}"
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def _is_preprocessed(data: Path) -> bool:
    """Whether nnU-Net has preprocessed every case of the dataset into this folder."""
    description = data.parent / DATASET_JSON
    if not description.is_file():
        return data.is_dir()
    return len(list(data.glob("*.pkl"))) >= load_json(str(description))["numTraining"]


def _save(preprocessed: Path, plans: dict[str, Any]) -> Path:
    path = preprocessed / f"{plans['plans_name']}.json"
    with replaced_atomically(str(path)) as temporary:
        save_json(plans, temporary, sort_keys=False)
    return path


def _summary(
    plans: dict[str, Any], report: list[str], name: str, trainer: str, preprocess: bool
) -> str:
    """Text for the user: what was written, and the commands to run next."""
    subset = plans["train_subset"]
    identifier = plans["plans_name"]
    lines = [f"plans {identifier}, configuration {name}:", *(f"  {line}" for line in report)]
    if subset["ratio"] < 1:
        lines.append(
            f"  trains on {100 * subset['ratio']:g} % of the training cases "
            f"(seed {subset['seed']}, {subset['rule']})"
        )
    lines.append("next:")
    dataset = dataset_id(plans["dataset_name"])  # nnUNetv2_preprocess accepts only ids
    if preprocess:
        lines.append(f"  nnUNetv2_preprocess -d {dataset} -plans_name {identifier} -c {name}")
    lines.append(f"  nnUNetv2_train {dataset} {name} 0 -tr {trainer} -p {identifier}")
    return "\n".join(lines)
