"""Plans that were written before under the same name: one name is one run."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some


def keep_earlier(preprocessed: Path, plans: dict[str, Any], name: str) -> None:
    """Take over the configurations that an earlier call wrote to the same plans.

    Raises:
        ValueError: the plans exist with another encoder, subset or content of this configuration:
            one name, one run.
    """
    identifier = plans["plans_name"]
    path = preprocessed / f"{identifier}.json"
    if not path.is_file():
        return
    former = load_json(str(path))
    if "train_subset" not in former:
        raise InputError(
            f"plans {identifier} were not written by nnunet-fm and are left alone; choose another -o"
        )
    added = {n: c for n, c in former["configurations"].items() if "field_of_view" in c}
    mine = plans["configurations"][name]
    different = [] if former.get("train_subset") == plans["train_subset"] else ["train_subset"]
    different += [
        f"encoder of {n}" for n, c in added.items() if _encoder_hash(c) != _encoder_hash(mine)
    ]
    if name in added:
        different += [
            key for key in mine if _without_path(added[name]).get(key) != _without_path(mine)[key]
        ]
    if different:
        stock = (
            " (nnU-Net's own intensities: --intensity stock)"
            if "normalization_schemes" in different
            else ""
        )
        raise InputError(
            f"plans {identifier} exist already, with another {some(different)}{stock}. Give these another name "
            f"(-o {identifier}_2), or remove {path} if nothing was trained with it"
        )
    plans["configurations"] = {**added, **plans["configurations"]}


def _encoder_hash(configuration: dict[str, Any]) -> str | None:
    arguments = configuration.get("architecture", {}).get("arch_kwargs", {})
    return (arguments.get("encoder_source") or {}).get("sha256")


def _without_path(configuration: dict[str, Any]) -> dict[str, Any]:
    """A copy in which the encoder is known by its hash, wherever its file lies."""
    copy = deepcopy(configuration)
    source = copy.get("architecture", {}).get("arch_kwargs", {}).get("encoder_source") or {}
    source.pop("file", None)
    return copy
