"""Turns a trained model folder into one that predicts without `nnUNet_extTrainer`, the source file or its path."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from nnunet_fm.files import replaced_atomically
from nnunet_fm.network import ENCODER
from nnunet_fm.planning import NETWORK
from nnunet_fm.trainer import FINAL

COPIED = ("dataset.json", "dataset_fingerprint.json")


def export_model(model: Path, out: Path, checkpoint: str = FINAL) -> list[str]:
    """Copy `model` to `out`, with nnU-Net's own trainer as the one that prediction asks for.

    The trainer that was used stays on record under `trained_with`. The optimiser's state is left out: the copy
    predicts, it cannot be trained on. The encoder's weights go along; mind their licence.

    Args:
        model: folder `nnUNet_results/DatasetXXX/TRAINER__PLANS__CONFIGURATION`.
        out: folder to make; must not exist or be empty.
        checkpoint: which checkpoint of each fold.

    Returns:
        The folds exported.

    Raises:
        FileNotFoundError: no such folder, or no fold with this checkpoint.
        FileExistsError: `out` is not empty.
        ValueError: the model is not of nnunet-fm, or the checkpoint is slim and cannot be completed.
    """
    plans_file = model / "plans.json"
    if not plans_file.is_file():
        raise FileNotFoundError(f"{model} is no trained model folder: it has no plans.json")
    folds = sorted(p.parent.name for p in model.glob(f"fold_*/{checkpoint}"))
    if not folds:
        raise FileNotFoundError(f"no fold of {model} has a {checkpoint}; finish the training, or name one with -chk")
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; give a folder that does not exist yet")
    plans = json.loads(plans_file.read_text())
    _forget_paths(plans)
    out.mkdir(parents=True, exist_ok=True)
    for fold in folds:
        (out / fold).mkdir()
        content = torch.load(model / fold / checkpoint, map_location="cpu", weights_only=False)
        with replaced_atomically(str(out / fold / FINAL)) as temporary:
            torch.save(_for_prediction(content), temporary)
    for name in COPIED:
        if (model / name).is_file():
            shutil.copyfile(model / name, out / name)
    (out / "plans.json").write_text(json.dumps(plans, indent=4))
    return folds


def _for_prediction(content: dict[str, Any]) -> dict[str, Any]:
    if not any(k.startswith(ENCODER) for k in content["network_weights"]):
        raise ValueError(
            f"this checkpoint is slim (it holds no encoder); export {FINAL}, which is complete unless its recipe says "
            "slim_final"
        )
    _forget_paths(content["init_args"]["plans"])
    content["init_args"]["device"] = torch.device("cpu")
    kept = ("network_weights", "init_args", "inference_allowed_mirroring_axes", "current_epoch", "logging", "_best_ema")
    exported = {k: content[k] for k in kept}
    return exported | {
        "trainer_name": "nnUNetTrainer",
        "trained_with": content["trainer_name"],
        "optimizer_state": None,
        "grad_scaler_state": None,
    }


def _forget_paths(plans: dict[str, Any]) -> None:
    """Keep the encoder file's name and hash, not the folder it lay in."""
    for configuration in plans["configurations"].values():
        architecture = configuration.get("architecture", {})
        if architecture.get("network_class_name") == NETWORK:
            source = architecture["arch_kwargs"].get("encoder_source") or {}
            if "file" in source:
                source["file"] = Path(source["file"]).name
