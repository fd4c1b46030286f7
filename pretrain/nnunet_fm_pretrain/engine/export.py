"""The encoder of a run as a weight file with its card."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nnunet_fm.encoders import load_encoder
from nnunet_fm.encoders.loading.metadata import check_suffix, write_encoder
from nnunet_fm.internal.atomic_files import replaced_atomically
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.hub_address import is_hub_address
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Exported
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.engine.start import parse_earlier


def export_checkpoint(
    content: dict[str, Any], method: Method, run: Path, out: Path, half: bool = False
) -> dict[str, Any]:
    """Write the encoder of a checkpoint, checked by reading it with the strict loader.

    Args:
        content: of the checkpoint.
        method: that trained it.
        run: folder or file that the checkpoint was read from.
        out: `.pth` or `.safetensors`.
        half: write float16 tensors, half as large.

    Returns:
        The card that was written into the file.

    Raises:
        ValueError: another file name extension, or an encoder that the loader refuses.
    """
    check_suffix(out)
    recipe = parse_earlier(content, method, run)
    objective = method.build(recipe)
    objective.load_state_dict(content["objective"])
    exported = objective.export_encoder()
    card = _card(content, method.name, recipe, exported)
    tensors = {k: v.half() if half else v for k, v in exported.tensors.items()}
    try:
        with torch.no_grad(), replaced_atomically(out) as unchecked:
            write_encoder(unchecked, tensors, card)
            _check(unchecked, exported)
    except InputError as error:
        raise InputError(
            f"the encoder of {run} would not load again, so {out} was not written: {error}"
        ) from None
    return card


def _check(file: Path, exported: Exported) -> None:
    """Raise ValueError unless the strict loader makes of a file what the method says it is."""
    _, report = load_encoder(file)
    found = (report.card, report.architecture)
    if found != (exported.card, exported.architecture):
        raise InputError(
            f"it is read as {found[0]} ({found[1]}); the method exports {exported.card} "
            f"({exported.architecture}), which has to be a registered weight card"
        )
    if report.missing:
        raise InputError(f"it lacks {', '.join(report.missing)}")


def _card(
    content: Mapping[str, Any], method: str, recipe: Recipe, exported: Exported
) -> dict[str, Any]:
    """Return the metadata of the file: what the encoder is, and what it has seen."""
    subjects = content["subjects"]
    return {
        "card": exported.card,
        "architecture": exported.architecture,
        "options": dict(exported.options),
        "method": method,
        "step": content["step"],
        "steps": recipe.optimiser.steps,
        "datasets": ", ".join(sorted({s.split("/")[0] for s in subjects})),
        "subjects": len(subjects),
        "subjects_sha256": hashlib.sha256("\n".join(subjects).encode()).hexdigest(),
        "store_sha256": content["store"],
        "licence": content["licence"],
        "recipe": json.dumps(_without_folders(content["recipe"])),
    }


def _without_folders(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with the names of local files alone, not the folders that they lie in."""
    shown: dict[str, Any] = dict(recipe)
    for part, key in (("encoder", "init"), ("text", "file")):
        given = recipe.get(part, {}).get(key)
        if given and not is_hub_address(given):
            shown[part] = {**recipe[part], key: Path(given).name}
    return shown
