"""The encoder of a run as a weight file with its card."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from nnunet_fm.encoders.loading.metadata import write_encoder
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.start import parse_earlier


def export_checkpoint(
    content: dict[str, Any], method: Method, run: Path, out: Path, half: bool = False
) -> dict[str, Any]:
    """Write the encoder of a checkpoint; `nnunet_fm_pretrain.runs.export` finds both.

    Args:
        content: of the checkpoint.
        method: that trained it.
        run: folder or file that the checkpoint was read from.
        out: `.pth` or `.safetensors`.
        half: write float16 tensors, half as large.

    Returns:
        The card that was written into the file.

    Raises:
        ValueError: another file name extension.
    """
    recipe = parse_earlier(content, method, run)
    objective = method.build(recipe)
    objective.load_state_dict(content["objective"])
    exported = objective.export_encoder()
    subjects = content["subjects"]
    card = {
        "card": exported.card,
        "architecture": exported.architecture,
        "options": dict(exported.options),
        "method": method.name,
        "step": content["step"],
        "steps": recipe.optimiser.steps,
        "datasets": ", ".join(sorted({s.split("/")[0] for s in subjects})),
        "subjects": len(subjects),
        "subjects_sha256": hashlib.sha256("\n".join(subjects).encode()).hexdigest(),
        "store_sha256": content["store"],
        "licence": content["licence"],
        "recipe": json.dumps(content["recipe"]),
    }
    tensors = {k: v.half() if half else v for k, v in exported.tensors.items()}
    with torch.no_grad():
        write_encoder(out, tensors, card)
    return card
