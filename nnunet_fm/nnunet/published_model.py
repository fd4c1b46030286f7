"""Trained models as they are published: the weights are safetensors, and nothing is pickled.

    MODEL/config.json                            SHA-256 of the weight files, and the model's card
    MODEL/plans.json, MODEL/dataset.json         as nnU-Net reads them
    MODEL/encoder.safetensors                    frozen encoder of all folds, if it is passed on
    MODEL/fold_0/checkpoint_final.safetensors    the other tensors
    MODEL/fold_0/nnunet_fm.json                  record of the training

Wherever nnU-Net asks for `fold_0/checkpoint_final.pth`, `read_checkpoint` reads these.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_fm.encoders.loading.read import read_tensors
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.files import files_sha256
from nnunet_fm.internal.hub_folder import CARD, CONFIG
from nnunet_fm.internal.json_files import parse_json, read_object
from nnunet_fm.internal.safetensors_files import read_metadata, write_safetensors
from nnunet_fm.network.frozen import ENCODER, NETWORKS
from nnunet_fm.nnunet.dataset_files import read_dataset_json, read_plans
from nnunet_fm.nnunet.file_names import DATASET_JSON, FINAL_CHECKPOINT, PLANS_JSON
from nnunet_fm.nnunet.run_record import RECORD

SUFFIX = ".safetensors"
PUBLISHED_CHECKPOINT = Path(FINAL_CHECKPOINT).with_suffix(SUFFIX).name
ENCODER_FILE = f"encoder{SUFFIX}"
FOLDS = "fold_*"
FILES = (
    *(CONFIG, CARD, PLANS_JSON, DATASET_JSON, ENCODER_FILE),
    *(f"{FOLDS}/{PUBLISHED_CHECKPOINT}", f"{FOLDS}/{RECORD}"),
)
KEY = "nnunet_fm_checkpoint"
FACTS = ("inference_allowed_mirroring_axes", "current_epoch")
STOCK_NETWORKS = "dynamic_network_architectures."
AGAIN = "download or export the folder again"


def stored_checkpoint(path: Path) -> Path:
    """Return the file that holds a checkpoint: itself, or the published form beside it."""
    published = path.with_suffix(SUFFIX)
    return published if published.is_file() and not path.is_file() else path


def trained_with(content: Mapping[str, Any]) -> str:
    """Return the name of the trainer of a checkpoint, exported or not."""
    return str(content.get("trained_with") or content["trainer_name"])


def write_fold(folder: Path, content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint as it is published.

    Args:
        folder: of the fold; it exists.
        content: of the checkpoint, as `read_checkpoint` returns it.
        weights: its tensors, without those of an encoder that all folds share.

    Returns:
        The file.
    """
    tensors, copies = _without_copies(weights)
    facts: dict[str, Any] = {key: content.get(key) for key in FACTS}
    facts |= {key: content["init_args"][key] for key in ("configuration", "fold")}
    facts["trained_with"] = trained_with(content)
    file = folder / PUBLISHED_CHECKPOINT
    write_safetensors(file, tensors, KEY, json.dumps(facts | {"copies": copies}))
    return file


def _without_copies(
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return each tensor once, and for its other names the one that it has there.

    nnU-Net's U-Nets list a layer under up to four names.
    """
    names: dict[tuple[Any, ...], str] = {}
    kept: dict[str, Tensor] = {}
    copies: dict[str, str] = {}
    for name, tensor in weights.items():
        where = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        first = names.setdefault(where, name)
        if first == name:
            kept[name] = tensor
        else:
            copies[name] = first
    return kept, copies


def read_published(path: Path) -> dict[str, Any]:
    """Read a published checkpoint as a trainer of nnU-Net would have saved it.

    Args:
        path: `MODEL/fold_N/checkpoint_final.safetensors`.

    Raises:
        InputError: a file that is damaged, or is not the one that was published, or plans that name
            a network of somebody else's.
        FileNotFoundError: a file of the folder is missing.
    """
    model = path.parent.parent
    hashes = read_object(model / CONFIG, AGAIN).get("files")
    if not isinstance(hashes, dict):
        raise InputError(f"{model / CONFIG} lists no files; {AGAIN}")
    facts = parse_json(read_metadata(path, KEY) or "", str(path), remedy=AGAIN)
    weights = _checked_tensors(path, hashes)
    try:
        weights |= {name: weights[first] for name, first in facts.get("copies", {}).items()}
        plans = read_plans(model / PLANS_JSON)
        configuration = facts["configuration"]
    except KeyError as error:
        raise InputError(f"{path} is damaged: {error} is missing; {AGAIN}") from None
    _check_networks(plans, model / PLANS_JSON)
    if ENCODER_FILE in hashes and not any(name.startswith(ENCODER) for name in weights):
        encoder = _checked_tensors(model / ENCODER_FILE, hashes)
        weights |= {f"{ENCODER}{name}": tensor for name, tensor in encoder.items()}
    axes = facts.get(FACTS[0])
    return {
        "network_weights": weights,
        "init_args": {
            "plans": plans,
            "configuration": configuration,
            "fold": facts.get("fold"),
            "dataset_json": read_dataset_json(model / DATASET_JSON),
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "trained_with": facts.get("trained_with"),
        "current_epoch": facts.get("current_epoch"),
        "inference_allowed_mirroring_axes": None if axes is None else tuple(axes),
    }


def _checked_tensors(path: Path, hashes: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the tensors of a weight file whose SHA-256 the configuration states."""
    tensors: dict[str, Tensor] = read_tensors(path)
    name = path.name if path.name == ENCODER_FILE else f"{path.parent.name}/{path.name}"
    if hashes.get(name) != files_sha256([path]):
        raise InputError(f"{path} is not the file that {CONFIG} beside it describes; {AGAIN}")
    return tensors


def _check_networks(plans: Mapping[str, Any], file: Path) -> None:
    """Refuse plans that name a class which nnU-Net would import from anywhere and call."""
    for configuration in plans["configurations"].values():
        name = configuration.get("architecture", {}).get("network_class_name", NETWORKS[0])
        if name not in NETWORKS and not str(name).startswith(STOCK_NETWORKS):
            raise InputError(
                f"{file} names the network {name}; allowed in a published model: "
                f"{', '.join(NETWORKS)} and those of {STOCK_NETWORKS.rstrip('.')}"
            )
