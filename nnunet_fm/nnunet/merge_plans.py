"""Plans that were written before under the same name: one name is one run."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_fm.encoders import EncoderSource
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.encoder_in_plans import encoder_source


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
    sha256 = _encoder_sha256(plans, name)
    different += [f"encoder of {n}" for n in added if _encoder_sha256(former, n) != sha256]
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


def _encoder_sha256(plans: dict[str, Any], configuration: str) -> str | None:
    source = encoder_source(plans, configuration)
    return None if source is None else source.sha256


def _without_path(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that identifies the encoder by its hash, not by its file."""
    copy = deepcopy(configuration)
    arguments = copy.get("architecture", {}).get("arch_kwargs", {})
    source = EncoderSource.from_plans(arguments)
    if source is not None:
        arguments |= replace(source, file=None).to_plans()
    return copy
