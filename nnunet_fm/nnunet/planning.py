"""Write plans: the dataset's own nnU-Net plans plus configurations around a frozen encoder."""

import json
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fm.encoders import CARDS, bundled_weights
from nnunet_fm.internal.arguments import flag_names
from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.internal.device import default_device
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.hub_address import HubAddress, is_hub_address
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.internal.messages import some, unknown
from nnunet_fm.nnunet.dataset_files import RESTORE, USED, read_dataset_json, read_plans
from nnunet_fm.nnunet.datasets import DATASET_NAME, dataset_id, known_datasets, no_such_dataset
from nnunet_fm.nnunet.encoder_in_plans import encoder_source
from nnunet_fm.nnunet.file_names import DATASET_JSON, FINGERPRINT_JSON, SPLITS_JSON
from nnunet_fm.nnunet.frozen_configuration import frozen_configuration
from nnunet_fm.nnunet.merge_plans import (
    decoder_to_keep,
    merge_existing_configurations,
    refuse_trained_otherwise,
    settle_batch,
)
from nnunet_fm.nnunet.next_steps import (
    default_trainer,
    preprocess_command,
    subset_report,
    train_command,
)
from nnunet_fm.nnunet.patch import derive_configuration, side_label
from nnunet_fm.nnunet.plan_options import NO_ENCODER, PlanOptions
from nnunet_fm.nnunet.pretraining_overlap import about_weights
from nnunet_fm.nnunet.splits import first_fold
from nnunet_fm.nnunet.train_subset import TrainSubset
from nnunet_fm.nnunet.training_seed import seed_suffix, write_training_seed

NO_PLANS = (DATASET_JSON, FINGERPRINT_JSON, SPLITS_JSON)  # other JSON files beside nnU-Net's plans
ENCODER_OPTIONS = (  # have no meaning without an encoder
    "card",
    "encoder_options",
    "preset",
    "taps",
    "fusion",
    "channels",
    "encoder_scale",
    "decoder",
    "decoder_options",
    "detail_width",
    "tokens",
    "seed",
    "mix_slices",
)


@dataclass(frozen=True)
class NewPlans:
    """Plans that were checked; they are on disk once `write` has been called.

    Attributes:
        path: the file.
        content: what it holds.
        configuration: the new one, e.g. `2d_fm256`.
        data: folder of the configuration's preprocessed data.
        preprocessed: whether nnU-Net has preprocessed the data already.
        summary: text for the user, with the commands to run next.
    """

    path: Path
    content: dict[str, Any]
    configuration: str
    data: Path
    preprocessed: bool
    summary: str

    @property
    def identifier(self) -> str:
        """Name for `-p`."""
        return self.path.stem

    def write(self) -> None:
        """Write the file atomically, unless it holds these plans already."""
        text = json.dumps(self.content, indent=4)
        if not self.path.is_file() or read_object(self.path) != json.loads(text):
            write_text(self.path, text)


def write_plans(preprocessed: Path, options: PlanOptions) -> NewPlans:
    """Make plans and write them; arguments and errors as `make_plans`.

    Raises:
        ValueError: a model was trained with other plans of this name.
    """
    plans = make_plans(preprocessed, options)
    refuse_trained_otherwise(plans.content)
    plans.write()
    return plans


def make_plans(preprocessed: Path, options: PlanOptions) -> NewPlans:
    """Make plans and check them; nothing is written.

    Args:
        preprocessed: the dataset's folder in `nnUNet_preprocessed`.
        options: encoder, network, patch, subset and names.

    Raises:
        FileNotFoundError: the dataset has not been planned by nnU-Net yet.
        ValueError: impossible options; the message names what is possible.
    """
    plans = _source_plans(preprocessed, options)
    plans["train_subset"] = options.subset.to_json()
    write_training_seed(plans, options.training_seed)
    _refuse_ignored(options)
    stock = _resolved(plans, options)
    plans["plans_name"] = _name(options)
    path = preprocessed / f"{plans['plans_name']}.json"
    existing = read_plans(path) if path.is_file() else None
    if options.encoder == NO_ENCODER:
        name, report = _stock_plans(plans, stock, options)
    else:
        kept = decoder_to_keep([existing] if existing else [], options)
        asked = options if kept is None else options.model_copy(update={"decoder": kept})
        name, report = _frozen_plans(plans, stock, asked, preprocessed)
        report += [] if kept is None else [f"decoder {kept}, as in these plans before"]
    device = options.device or default_device()
    report += settle_batch(existing, plans, name, options.batch_size, device)
    merge_existing_configurations(existing, plans, name, path)
    data = preprocessed / PlansManager(plans).get_configuration(name).data_identifier
    ready = _is_preprocessed(data)
    fold = first_fold(preprocessed)
    report += subset_report(preprocessed, plans, fold)
    trainer = default_trainer(options.encoder, len(stock["patch_size"]), options.mix_slices)
    commands = [] if ready else [preprocess_command(plans, name)]
    commands.append(train_command(plans, name, trainer, fold, device))
    lines = [f"plans {plans['plans_name']}, configuration {name}:", *(f"  {r}" for r in report)]
    lines += ["next:", *(f"  {shlex.join(argv)}" for argv in commands)]
    return NewPlans(
        path=path,
        content=plans,
        configuration=name,
        data=data,
        preprocessed=ready,
        summary="\n".join(lines),
    )


def _source_plans(preprocessed: Path, options: PlanOptions) -> dict[str, Any]:
    """Read the plans to start from.

    Raises:
        FileNotFoundError: nnU-Net has not planned the dataset, or there are no such plans.
        ValueError: they have no such configuration.
    """
    source = preprocessed / f"{options.source_plans}.json"
    if not source.is_file():
        raise MissingFileError(_missing_plans(preprocessed, options))
    plans: dict[str, Any] = read_plans(source)
    known = plans.get("configurations", {})
    if options.configuration not in known:
        raise InputError(
            unknown("configuration", options.configuration, known, "Plan it with nnU-Net first.")
        )
    return plans


def _resolved(plans: dict[str, Any], options: PlanOptions) -> dict[str, Any]:
    """Return the configuration to start from, with what it inherits.

    Raises:
        ValueError: the plans are incomplete.
    """
    try:
        found = PlansManager(plans).get_configuration(options.configuration).configuration
        missing = [key for key in USED if key not in found]
        missing += [key for key in ("plans_name", "dataset_name") if key not in plans]
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        missing = [str(error)]
    if missing:
        raise InputError(
            f"{options.source_plans}.json is incomplete for {options.configuration}: no "
            f"{some(missing)}; {RESTORE}"
        )
    return dict(found)


def _missing_plans(preprocessed: Path, options: PlanOptions) -> str:
    """Say which plans the dataset has, or how nnU-Net plans it."""
    others = [path.stem for path in preprocessed.glob("*.json") if path.name not in NO_PLANS]
    if others:
        return unknown(
            "plans", options.source_plans, others, f"These are the plans of {preprocessed.name}."
        )
    name = preprocessed.name
    known = known_datasets()
    if known and name not in known:
        return no_such_dataset(name)
    number = dataset_id(name) if DATASET_NAME.fullmatch(name) else "ID"
    return (
        f"{preprocessed / options.source_plans}.json does not exist. Type "
        f"`nnUNetv2_plan_and_preprocess -d {number} -c {options.configuration}` first"
    )


def _refuse_ignored(options: PlanOptions) -> None:
    """Raise ValueError for options that would have no effect."""
    if options.encoder != NO_ENCODER:
        return
    for name in ENCODER_OPTIONS:
        if getattr(options, name) in (None, {}):
            continue
        flag = flag_names(PlanOptions, name)[0]
        raise InputError(f"{flag} has no meaning with --encoder none (stock nnU-Net); omit it")


def _stock_plans(
    plans: dict[str, Any], stock: dict[str, Any], options: PlanOptions
) -> tuple[str, list[str]]:
    """Keep the stock architecture, at another patch, field of view or batch size if requested."""
    if not (options.patch or options.fov or options.batch_size):
        return options.configuration, [
            f"stock configurations ({', '.join(plans['configurations'])}), for -tr SubsetTrainer"
        ]
    strides = stock["architecture"]["arch_kwargs"]["strides"]
    steps = [math.prod(s[axis] for s in strides) for axis in range(len(stock["patch_size"]))]
    step = max(steps)
    patch = tuple(options.patch or stock["patch_size"])
    configuration, report = derive_configuration(
        stock, options.configuration, patch, step, options.fov or "native", options.batch_size
    )
    if configuration["patch_size"] == steps:
        raise InputError(
            f"patch {'x'.join(map(str, steps))}: the stock architecture would reduce it to one "
            f"pixel, which it cannot normalise; allowed: {step * 2} and other multiples of {step}"
        )
    name = f"{options.configuration}_stock{side_label(configuration['patch_size'])}"
    plans["configurations"][name] = configuration
    return name, ["stock architecture, for -tr SubsetTrainer", *report]


def _frozen_plans(
    plans: dict[str, Any], stock: dict[str, Any], options: PlanOptions, preprocessed: Path
) -> tuple[str, list[str]]:
    """Add a configuration around a frozen encoder."""
    description = preprocessed / DATASET_JSON
    dataset = read_dataset_json(description) if description.is_file() else {}
    name, configuration, report = frozen_configuration(stock, options, dataset)
    plans["configurations"][name] = configuration
    source = encoder_source(plans, name)
    card = CARDS.get("" if source is None else source.card)
    return name, [*report, *([] if card is None else about_weights(card, preprocessed, dataset))]


def _name(options: PlanOptions) -> str:
    """Return the name of the plans: the user's, or one that tells the options apart."""
    encoder = NO_ENCODER if options.encoder == NO_ENCODER else _short_name(options)
    return options.output or _identifier(encoder, options)


def _identifier(encoder: str, options: PlanOptions) -> str:
    """Name the plans: `FM_<encoder>`, and the subset and the training's seed where not default."""
    subset = options.subset
    training = seed_suffix(options.training_seed)
    if subset.ratio == 1:
        return f"FM_{encoder}{training}"
    seed = "" if subset.seed == TrainSubset().seed else f"_s{subset.seed}"
    rule = "" if subset.rule == TrainSubset().rule else f"_{subset.rule}"
    return f"FM_{encoder}_r{subset.percent}{seed}{rule}{training}"


def _short_name(options: PlanOptions) -> str:
    """Name the encoder: its weights, or its architecture with `random` and the seed if not 0."""
    file = Path(options.encoder)
    if is_hub_address(options.encoder):
        name = HubAddress.parse(options.encoder).name
    elif file.is_file():
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
    return (
        len(list(data.glob("*.pkl")))
        >= read_dataset_json(description, "numTraining")["numTraining"]
    )
