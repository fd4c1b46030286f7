"""Trained models that a prediction names: whether nnUNet_results has them, and their folds."""

from collections.abc import Sequence
from pathlib import Path

from nnunet_fm.encoders.loading.hub import fetch_folder
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.folders import nnunet_folder
from nnunet_fm.internal.hub_address import is_hub_address
from nnunet_fm.internal.hub_folder import CONFIG
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.commands import flag_value
from nnunet_fm.nnunet.datasets import dataset_name
from nnunet_fm.nnunet.file_names import FINAL_CHECKPOINT, PLANS_JSON
from nnunet_fm.nnunet.published_model import (
    FILES,
    FOLDS,
    PUBLISHED_CHECKPOINT,
    stored_checkpoint,
)
from nnunet_fm.nnunet.splits import NNUNET_FOLDS, folds_to_predict


def check_model(argv: Sequence[str]) -> None:
    """Check that a prediction's model and its folds exist, before anything is loaded.

    Args:
        argv: flags of `nnUNetv2_predict`, or of `nnUNetv2_predict_from_modelfolder`.

    Raises:
        FileNotFoundError: no such model, or a fold without its checkpoint; the message names
            those there are, as they are typed.
        ValueError: an unknown dataset.
    """
    if "-h" in argv or "--help" in argv:
        return
    model = _model_folder(argv)
    if model is None:
        return  # nnU-Net says which flag is missing
    if not (model / PLANS_JSON).is_file():
        raise MissingFileError(f"{model} is no trained model; {_trained_models(model.parent)}")
    checkpoint = flag_value(argv, "-chk", FINAL_CHECKPOINT)
    there = folds_with(model, checkpoint)
    folds = _values(argv, "-f") or [str(fold) for fold in range(NNUNET_FOLDS)]
    missing = [fold for fold in folds if f"fold_{fold}" not in there]
    if missing:
        typed = " ".join(map(str, folds_to_predict(there)))
        advice = f"type -f {typed}" if there else "train it first, or name another one with -chk"
        raise MissingFileError(
            f"{model} has no {checkpoint} of fold {', '.join(missing)}; {advice}"
        )


def folds_with(model: Path, checkpoint: str) -> list[str]:
    """List the folders of the folds that have a checkpoint, as nnU-Net or as published; sorted."""
    folds = model.glob(FOLDS)
    return sorted(fold.name for fold in folds if stored_checkpoint(fold / checkpoint).is_file())


def with_local_model(argv: Sequence[str]) -> list[str]:
    """Replace a model on the Hub by its folder in the cache, downloaded unless it is there.

    Args:
        argv: flags of a prediction, perhaps with `-m hf://OWNER/NAME[@REVISION]`.

    Raises:
        MissingFileError, CheckpointError: as `fetch_folder`.
        InputError: the repository is no published model.
    """
    given = flag_value(argv, "-m")
    if not is_hub_address(given):
        return list(argv)
    fetched = fetch_folder(given, FILES)
    if not (fetched.path / CONFIG).is_file() or not folds_with(fetched.path, FINAL_CHECKPOINT):
        raise InputError(
            f"{fetched.address} is no model of `nnunet-fm export --hub`: it has no {CONFIG}, or no "
            f"{FOLDS}/{PUBLISHED_CHECKPOINT}"
        )
    place = list(argv).index("-m") + 1
    return [*argv[:place], str(fetched.path), *argv[place + 1 :]]


def _model_folder(argv: Sequence[str]) -> Path | None:
    """Return the folder of the model; None where a flag is missing."""
    if flag_value(argv, "-m"):
        return Path(flag_value(argv, "-m"))
    dataset = flag_value(argv, "-d")
    configuration = flag_value(argv, "-c")
    if not dataset or not configuration:
        return None
    folder = dataset_name(dataset)
    trainer = flag_value(argv, "-tr", "nnUNetTrainer")
    name = f"{trainer}__{flag_value(argv, '-p', 'nnUNetPlans')}__{configuration}"
    return nnunet_folder("nnUNet_results") / folder / name


def _trained_models(folder: Path) -> str:
    models = [path.parent.name.split("__") for path in sorted(folder.glob(f"*__*__*/{PLANS_JSON}"))]
    typed = [f"-tr {m[0]} -p {'__'.join(m[1:-1])} -c {m[-1]}" for m in models]
    return f"{folder.name} has {some(typed, 10) or 'none'}"


def _values(argv: Sequence[str], flag: str) -> list[str]:
    """Return the words behind a flag that takes several."""
    values: list[str] = []
    if flag in argv:
        for word in argv[list(argv).index(flag) + 1 :]:
            if word.startswith("-"):
                break
            values.append(word)
    return values
