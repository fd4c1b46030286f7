"""Export a trained model: predict without `nnUNet_extTrainer` and without the encoder's file."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import save_json

from nnunet_fm.encoders import EncoderSource
from nnunet_fm.internal.atomic_files import created_whole
from nnunet_fm.internal.errors import ExistingFileError, InputError, MissingFileError
from nnunet_fm.internal.hub_address import is_hub_address
from nnunet_fm.network.frozen import ENCODER, NETWORKS
from nnunet_fm.nnunet.checkpoint_file import read_checkpoint
from nnunet_fm.nnunet.dataset_files import read_plans
from nnunet_fm.nnunet.file_names import DATASET_JSON, FINAL_CHECKPOINT, FINGERPRINT_JSON, PLANS_JSON
from nnunet_fm.nnunet.published_model import trained_with
from nnunet_fm.nnunet.run_record import RunRecord, read_record, write_record
from nnunet_fm.nnunet.trained_models import folds_with

COPIED = (DATASET_JSON, FINGERPRINT_JSON)


def export_model(
    model: Path, out: Path, checkpoint: str = FINAL_CHECKPOINT, trust_checkpoint: bool = False
) -> list[str]:
    """Copy `model` to `out` so that prediction needs nothing but stock nnU-Net.

    The copy names nnU-Net's own trainer; the one that trained it is kept as `trained_with`. The
    copy has no optimiser state, so its training cannot be resumed. It contains the encoder's
    weights; mind their licence.

    Args:
        model: folder `nnUNet_results/DatasetXXX/TRAINER__PLANS__CONFIGURATION`, or as published.
        out: folder to make; must not exist or be empty.
        checkpoint: which checkpoint of each fold.
        trust_checkpoint: see `read_checkpoint`.

    Returns:
        The folds exported.

    Raises:
        FileNotFoundError: no such folder, or no fold with this checkpoint.
        FileExistsError: `out` is not empty.
        CheckpointError: the checkpoint is slim and its encoder file has changed.
    """
    folds = trained_folds(model, checkpoint)
    if out.exists() and any(out.iterdir()):
        raise ExistingFileError(f"{out} is not empty; give a folder that does not exist yet")
    plans = read_plans(model / PLANS_JSON)
    forget_paths(plans)
    with created_whole(out) as partial:
        for fold in folds:
            (partial / fold).mkdir()
            content = read_checkpoint(model / fold / checkpoint, trust_checkpoint)
            torch.save(_for_prediction(content), partial / fold / FINAL_CHECKPOINT)
            record = read_record(model / fold)
            if record and record.orientations:  # which `nnunet-fm predict` asks for
                write_record(RunRecord(orientations=record.orientations), partial / fold)
        for name in COPIED:
            if (model / name).is_file():
                shutil.copyfile(model / name, partial / name)
        save_json(plans, str(partial / PLANS_JSON), sort_keys=False)
    return folds


def trained_folds(model: Path, checkpoint: str) -> list[str]:
    """List the folders of the folds that have a checkpoint, sorted.

    Raises:
        FileNotFoundError: no trained model, or no fold with this checkpoint.
    """
    if not (model / PLANS_JSON).is_file():
        raise MissingFileError(f"{model} is not a trained model folder: it has no {PLANS_JSON}")
    folds = folds_with(model, checkpoint)
    if not folds:
        raise MissingFileError(
            f"no fold of {model} has a {checkpoint}; finish the training, or name one with -chk"
        )
    return folds


def _for_prediction(content: dict[str, Any]) -> dict[str, Any]:
    """Reduce a checkpoint to what prediction needs; a slim one is completed from its source."""
    plans = content["init_args"]["plans"]
    configuration = content["init_args"]["configuration"]
    architecture = plans["configurations"][configuration].get("architecture", {})
    weights = content["network_weights"]
    source = EncoderSource.from_plans(architecture.get("arch_kwargs", {}))
    is_slim = not any(key.startswith(ENCODER) for key in weights)
    if architecture.get("network_class_name") in NETWORKS and is_slim:
        if source is None:
            raise InputError("the checkpoint has no encoder weights, and its plans name none")
        state = source.load().state_dict()
        weights = {**weights, **{f"{ENCODER}{key}": value for key, value in state.items()}}
    forget_paths(plans)
    content["init_args"]["device"] = torch.device("cpu")
    kept = (
        "init_args",
        "inference_allowed_mirroring_axes",
        "current_epoch",
        "logging",
        "_best_ema",
    )
    return {k: content[k] for k in kept if k in content} | {
        "network_weights": weights,
        "trainer_name": "nnUNetTrainer",
        "trained_with": trained_with(content),
        "optimizer_state": None,
        "grad_scaler_state": None,
    }


def forget_paths(plans: dict[str, Any]) -> None:
    """Keep the encoder file's name and hash, not the folder it lay in; of one on the Hub, all."""
    for configuration in plans["configurations"].values():
        architecture = configuration.get("architecture", {})
        if architecture.get("network_class_name") not in NETWORKS:
            continue
        source = EncoderSource.from_plans(architecture["arch_kwargs"])
        if source is not None and source.file is not None and not is_hub_address(source.file):
            without_folder = replace(source, file=Path(source.file).name)
            architecture["arch_kwargs"] |= without_folder.to_plans()
