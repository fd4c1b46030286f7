"""A trained model as a folder for the Hugging Face Hub; see `published_model` for its files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from nnunet_fm.encoders import tensors_sha256
from nnunet_fm.encoders.licence import check_licence
from nnunet_fm.encoders.loading.metadata import write_encoder
from nnunet_fm.internal.atomic_files import created_whole, write_text
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.files import files_sha256
from nnunet_fm.internal.hub_folder import CARD, CONFIG, new_hub_folder
from nnunet_fm.network.frozen import ENCODER
from nnunet_fm.nnunet.checkpoint_file import read_checkpoint
from nnunet_fm.nnunet.dataset_files import read_dataset_json, read_plans
from nnunet_fm.nnunet.encoder_in_plans import describe_encoder, encoder_source, uses_tokens
from nnunet_fm.nnunet.export import forget_paths, trained_folds
from nnunet_fm.nnunet.file_names import DATASET_JSON, FINAL_CHECKPOINT, PLANS_JSON
from nnunet_fm.nnunet.published_card import describe_model, model_readme
from nnunet_fm.nnunet.published_encoder import PublishedEncoder
from nnunet_fm.nnunet.published_model import (
    ENCODER_FILE,
    SUFFIX,
    stored_checkpoint,
    write_fold,
)
from nnunet_fm.nnunet.run_record import read_record, write_record

CASE_LISTS = ("training", "test", "dataset")  # keys of `dataset.json` that name files of cases


@dataclass(frozen=True)
class Publication:
    """What was written.

    Attributes:
        folds: folders of the folds.
        licence: note on the weights that the model was made with; empty without any.
    """

    folds: list[str]
    licence: str


def publish_model(
    model: Path,
    out: Path,
    checkpoint: str = FINAL_CHECKPOINT,
    trust_checkpoint: bool = False,
    permitted: bool = False,
) -> Publication:
    """Write a trained model as a folder for the Hub, which `nnunet-fm predict -m` reads.

    The weights are safetensors. A frozen encoder is in the folder, once for all folds, unless it is
    bundled with this package or the plans name its commit on the Hub. No name of a case and no
    path of this machine is in the folder.

    Args:
        model: folder `nnUNet_results/DatasetXXX/TRAINER__PLANS__CONFIGURATION`.
        out: folder, which does not exist yet; its name is the model's.
        checkpoint: which checkpoint of each fold.
        trust_checkpoint: see `read_checkpoint`.
        permitted: the owners of the encoder's weights allow it, although their licence forbids it
            or is unknown.

    Raises:
        FileNotFoundError: no such folder, or no fold with this checkpoint.
        FileExistsError: `out` is not empty.
        ValueError: a folder for the Hub, a name that the Hub does not allow, a licence that forbids
            passing the weights on or is unknown, or an encoder file that has changed.
    """
    folder = new_hub_folder(out)
    folds = trained_folds(model, checkpoint)
    if stored_checkpoint(model / folds[0] / checkpoint).suffix == SUFFIX:
        raise InputError(f"{model} is a folder for the Hub already; copy it, or upload it as it is")
    plans = read_plans(model / PLANS_JSON)
    dataset = read_dataset_json(model / DATASET_JSON, "labels")
    first = read_checkpoint(model / folds[0] / checkpoint, trust_checkpoint)
    configuration = first["init_args"]["configuration"]
    source = encoder_source(plans, configuration)
    encoder = PublishedEncoder.find(source) if source else None
    if encoder and not encoder.elsewhere:
        check_licence(encoder.note, permitted)
    forget_paths(plans)
    with created_whole(folder) as partial:
        for fold in folds:
            content = read_checkpoint(model / fold / checkpoint, trust_checkpoint)
            encoder = _write_weights(content, encoder, partial / fold, permitted)
            _write_record(model / fold, partial / fold, plans, configuration)
        kept = {key: value for key, value in dataset.items() if key not in CASE_LISTS}
        _write_json(partial / DATASET_JSON, kept)
        _write_json(partial / PLANS_JSON, plans)
        files = sorted(path.relative_to(partial).as_posix() for path in partial.rglob(f"*{SUFFIX}"))
        config = describe_model(model, folds, checkpoint, content, plans, dataset, encoder)
        config["files"] = {name: files_sha256([partial / name]) for name in files}
        _write_json(partial / CONFIG, config)
        write_text(partial / CARD, model_readme(config, folder.name))
    return Publication(folds, encoder.licence if encoder else "")


def _write_weights(
    content: Mapping[str, Any], encoder: PublishedEncoder | None, fold: Path, permitted: bool
) -> PublishedEncoder | None:
    """Write the tensors of a fold and, once, those of a frozen encoder.

    Returns:
        The encoder, which is another one where the training changed it.
    """
    fold.mkdir()
    weights: Mapping[str, Tensor] = content["network_weights"]
    if encoder is None:
        write_fold(fold, content, weights)
        return None
    inside = {k.removeprefix(ENCODER): v for k, v in weights.items() if k.startswith(ENCODER)}
    if inside and tensors_sha256(inside) != encoder.source.sha256:
        tuned = encoder.changed_by_training()
        check_licence(tuned.note, permitted)
        write_fold(fold, content, weights)
        return tuned
    others = {k: v for k, v in weights.items() if not k.startswith(ENCODER)}
    write_fold(fold, content, others)
    file = fold.parent / ENCODER_FILE
    if not encoder.elsewhere and not file.is_file():
        state = inside or encoder.source.load().state_dict()
        write_encoder(file, state, encoder.about)
    return encoder


def _write_record(
    trained: Path, published: Path, plans: dict[str, Any], configuration: str
) -> None:
    """Copy the record of a training without the names of its cases and of local folders."""
    record = read_record(trained)
    if record is None:
        return
    source = encoder_source(plans, configuration)
    described = describe_encoder(source, uses_tokens(plans, configuration))
    write_record(replace(record, encoder=described, train_labels={}), published)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
