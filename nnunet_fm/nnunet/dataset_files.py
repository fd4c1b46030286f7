"""Read nnU-Net's own JSON files, `dataset.json`, plans and folds, and check what is used."""

from pathlib import Path
from typing import Any

from nnunet_fm.data.sequences import channel_names
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import read_list, read_object
from nnunet_fm.internal.messages import some
from nnunet_fm.internal.path_parts import check_ending, check_path_part

OBJECTS = {"labels", "channel_names", "modality"}
NUMBERS: dict[str, tuple[type[float], ...]] = {
    "batch_size": (int,),
    "patch_size": (int,),
    "spacing": (int, float),
}
USED = ("data_identifier", "batch_size", "patch_size", "spacing", "architecture")
RESTORE = "restore it, or write it again with nnU-Net"


def read_dataset_json(path: Path, *needed: str) -> dict[str, Any]:
    """Read a `dataset.json`.

    Args:
        path: the file.
        *needed: keys that it has to have, e.g. `labels`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, lacks a key, or a key has a value of another kind.
    """
    content = read_object(path, RESTORE)
    missing = [key for key in needed if not content.get(key)]
    if missing:
        raise InputError(f"{path} has no {some(missing)}, which nnU-Net needs; {RESTORE}")
    for key in OBJECTS & content.keys():
        if not isinstance(content[key], dict):
            raise InputError(f"{path}: {key} is {content[key]!r}; allowed: an object {{...}}")
    channels = channel_names(content)
    if not all(key.isdecimal() for key in channels):
        raise InputError(
            f"{path}: the channels have the numbers {some(list(channels))}; allowed: 0, 1, ..."
        )
    cases = content.get("numTraining", 0)
    if isinstance(cases, bool) or not isinstance(cases, int):
        raise InputError(f"{path}: numTraining is {cases!r}; allowed: a whole number")
    if "file_ending" in content:
        check_ending(content["file_ending"], path)
    return content


def read_plans(path: Path) -> dict[str, Any]:
    """Read plans.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file is damaged, or has no configurations.
    """
    content = read_object(path, RESTORE)
    configurations = content.get("configurations")
    if not isinstance(configurations, dict):
        raise InputError(f"{path} is no plans of nnU-Net: it has no configurations; {RESTORE}")
    for name, configuration in configurations.items():
        if not isinstance(configuration, dict):
            raise InputError(f"{path}: configuration {name} is no object {{...}}; {RESTORE}")
        _check_configuration(configuration, f"{path}: configuration {name}")
    for key in {"plans_name", "dataset_name"} & content.keys():
        check_path_part(content[key], f"{path}: {key}")
    return content


def _check_configuration(configuration: dict[str, Any], where: str) -> None:
    """Check the values that are used here, where they are not inherited."""
    if "data_identifier" in configuration:  # a folder of preprocessed data
        check_path_part(configuration["data_identifier"], f"{where}: data_identifier")
    for key, kinds in NUMBERS.items():
        if key not in configuration:
            continue
        value = configuration[key]
        numbers = value if isinstance(value, list) and key != "batch_size" else [value]
        if not numbers or not all(_is_positive(number, kinds) for number in numbers):
            raise InputError(f"{where}: {key} is {value!r}; allowed: numbers above 0; {RESTORE}")


def _is_positive(value: Any, kinds: tuple[type[float], ...]) -> bool:
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    return value > 0


def read_folds(path: Path) -> list[dict[str, list[str]]]:
    """Read a `splits_final.json`: for each fold, the cases of `train` and of `val`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged, or a case is no name.
    """
    folds = []
    for fold in read_list(path):
        sides = {}
        for side in ("train", "val"):
            cases = fold.get(side) if isinstance(fold, dict) else None
            if not isinstance(cases, list):
                raise InputError(
                    f"{path} is not a splits_final.json; allowed: a list of "
                    '{"train": [CASE, ...], "val": [CASE, ...]}'
                )
            sides[side] = [check_path_part(case, f"a case in {path}") for case in cases]
        folds.append(sides)
    return folds
