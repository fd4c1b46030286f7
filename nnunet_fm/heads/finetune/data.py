"""The data of a task on volumes: cases, prepared volumes, and the encoder that is fine-tuned."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nnunet_fm.encoders import Encoder
from nnunet_fm.encoders.slicewise import SliceWise
from nnunet_fm.features import FeatureRecipe
from nnunet_fm.features.extraction import check_sequences
from nnunet_fm.features.prepared_volumes import PreparedVolumes
from nnunet_fm.features.volume_loader import VolumeRef
from nnunet_fm.heads.finetune.fitter import FineTuner
from nnunet_fm.heads.finetune.network import unfrozen_parameters
from nnunet_fm.heads.finetune.settings import FineTuneTask
from nnunet_fm.heads.saved_runs import run_folder
from nnunet_fm.heads.splits import make_splits
from nnunet_fm.heads.task_data import TaskCases, TaskData, TaskInputs, select_cases
from nnunet_fm.internal.device import default_device
from nnunet_fm.internal.errors import InputError

TRAININGS = "trainings"  # folder of a run


def finetune_data(
    inputs: TaskInputs,
    encoder: Encoder,
    recipe: FeatureRecipe,
    out: Path,
    device: torch.device | None = None,
    processes: int = 2,
) -> TaskData:
    """Prepare the volumes of a task, for `run_task` to fine-tune an encoder on them.

    Args:
        inputs: a `FineTuneTask` with its table, see `open_task`; volumes are kept below its cache.
        encoder: see `open_encoder`; one of slices sees all slices of a volume.
        recipe: of the encoder, from `open_encoder`.
        out: folder of results, as given to `run_task`. The folder `trainings` of the run keeps the
            trained blocks and the head of each split, and a rerun reads them.
        device: a GPU if None and there is one.
        processes: that read and preprocess volumes.

    Raises:
        ValueError: several volumes per case, more blocks than the encoder has, volumes that cannot
            be used, or see `make_splits`.
    """
    task = inputs.task
    if not isinstance(task, FineTuneTask):
        raise InputError("this task is for heads on features; open it with kind=FineTuneTask")
    volume_encoder = SliceWise(encoder) if encoder.input_spec.spatial_dims == 2 else encoder
    unfrozen_parameters(volume_encoder, task.finetune.unfreeze)
    cases = select_cases(task, inputs.table)
    references = _one_volume_each(inputs, cases)
    check_sequences(encoder, {reference.modality for reference in references})
    data = inputs.describe(cases, np.array([]), recipe)
    make_splits(data)  # raises before the volumes are prepared
    volumes = PreparedVolumes(inputs.cache.folder, recipe)
    data = replace(data, x=np.array(volumes.prepare(references, processes)))
    fitter = FineTuner(
        volume_encoder,
        recipe,
        volumes,
        run_folder(out, data) / TRAININGS,
        device or torch.device(default_device()),
        torch.get_num_threads(),
    )
    return replace(data, fitter=fitter)


def _one_volume_each(inputs: TaskInputs, cases: TaskCases) -> list[VolumeRef]:
    """Return the volume of each case.

    Raises:
        InputError: the task and the table leave several modalities.
    """
    modalities = inputs.table.select_modalities(inputs.task.modalities)
    if len(modalities) > 1 and inputs.task.unit == "visit":
        raise InputError(
            f"the table has volumes of {', '.join(modalities)}, and fine-tuning takes one per "
            f"case; allowed: modalities=[{modalities[0]}] for one of them, or unit=volume"
        )
    references = []
    for row in cases.rows:
        references += [VolumeRef(row, name) for name in modalities if name in row.volumes]
    return references
