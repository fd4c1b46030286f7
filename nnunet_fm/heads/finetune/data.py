"""The data of a task on volumes: cases, prepared volumes, and the encoder that is fine-tuned."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from nnunet_fm.data.skull_stripping import warn_of_unused_masks
from nnunet_fm.encoders import Encoder
from nnunet_fm.encoders.slicewise import SliceWise
from nnunet_fm.features import FeatureRecipe
from nnunet_fm.features.opening import check_sequences
from nnunet_fm.features.prepared_volumes import PreparedVolumes
from nnunet_fm.features.sources import Source, check_complete
from nnunet_fm.features.volume_loader import VolumeRef
from nnunet_fm.heads.finetune.fitter import FineTuner
from nnunet_fm.heads.finetune.inner_split import inner_split
from nnunet_fm.heads.finetune.network import unfrozen_parameters
from nnunet_fm.heads.finetune.settings import FineTuneTask
from nnunet_fm.heads.splits import inner_folds, make_splits, subset
from nnunet_fm.heads.task_data import TaskCases, TaskData, TaskInputs, encoder_label, select_cases
from nnunet_fm.internal.device import default_device
from nnunet_fm.internal.errors import InputError

TRAININGS = "trainings"  # in the folder of results


def finetune_data(
    inputs: TaskInputs,
    encoder: Encoder,
    recipe: FeatureRecipe,
    out: Path,
    device: torch.device | None = None,
    processes: int = 2,
) -> TaskData:
    """Collect the volumes of a task, for `run_task` to fine-tune an encoder on them.

    Args:
        inputs: a `FineTuneTask` with its table, see `open_task`; volumes are kept below its cache.
        encoder: see `open_encoder`; one of slices sees all slices of a volume.
        recipe: of the encoder, from `open_encoder`.
        out: folder of results, as given to `run_task`. Its folder `trainings` keeps the trained
            blocks and the head of each split; runs that need them again read them.
        device: a GPU if None and there is one.
        processes: that read and preprocess volumes.

    Raises:
        FileNotFoundError: a volume does not exist.
        ValueError: several volumes per case for an encoder of one, more blocks than the encoder
            has, or too few subjects for one of the trainings.
    """
    task = inputs.task
    if not isinstance(task, FineTuneTask):
        raise InputError("this task is for heads on features; open it with kind=FineTuneTask")
    volume_encoder = SliceWise(encoder) if encoder.input_spec.spatial_dims == 2 else encoder
    unfreeze = task.finetune.unfreeze
    unfrozen_parameters(volume_encoder, unfreeze)
    cases = select_cases(task, inputs.table)
    references = _volumes_of(inputs, cases, recipe)
    if not recipe.channels:
        check_sequences(encoder, {r.modality for r in references}, "modalities=[{}]")
    if any(row.mask for row in cases.rows):
        warn_of_unused_masks(recipe.preprocessing["strip"])
    volumes = PreparedVolumes(inputs.cache, recipe, references, processes)
    columns = inputs.table.select_modalities(task.modalities)
    labels = dict.fromkeys(columns, encoder_label(recipe))
    data = inputs.describe(cases, np.array(volumes.keys), labels)
    _check_trainings(data, task.finetune.validation)
    fitter = FineTuner(
        volume_encoder,
        recipe,
        volumes,
        out / TRAININGS,
        device or torch.device(default_device()),
        torch.get_num_threads(),
    )
    return replace(data, encoder=f"{data.encoder}-unfrozen_{unfreeze}", fitter=fitter)


def _check_trainings(data: TaskData, validation: float) -> None:
    """Make every split that will be trained, so that one that is impossible is refused at once."""
    splits, _ = make_splits(data)
    for ratio, seed in product(data.task.ratios, range(data.task.seeds)):
        for split in splits:
            train = subset(data, split.train, ratio, seed)
            inner_split(data.training_cases(train), validation, seed)
            if data.chooses_threshold:
                for inner in inner_folds(data, train, data.task.youden_folds):
                    inner_split(data.training_cases(inner.train), validation, seed)


def _volumes_of(inputs: TaskInputs, cases: TaskCases, recipe: FeatureRecipe) -> list[VolumeRef]:
    """Return what the encoder gets of each case: its volume, or the volumes of its visit.

    Raises:
        InputError: several modalities for an encoder of one, single volumes for one of visits, or a
            visit without a sequence that the encoder needs.
    """
    modalities = inputs.table.select_modalities(inputs.task.modalities)
    by_visit = inputs.task.unit == "visit"
    if len(modalities) > 1 and by_visit and not recipe.channels:
        raise InputError(
            f"the table has volumes of {', '.join(modalities)}, and fine-tuning takes one per "
            f"case; allowed: modalities=[{modalities[0]}] for one of them, unit=volume, or "
            "--together for an encoder of several sequences"
        )
    if recipe.channels and not by_visit:
        raise InputError("--together with unit=volume; allowed: unit=visit")
    source = Source(recipe, modalities)
    check_complete(replace(inputs.table, rows=cases.rows), [source])
    return [VolumeRef(row, columns) for row in cases.rows for columns in source.inputs(row)]
