"""`nnunet-fm pretrain export`: the encoder of a run as a weight file with its card."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from nnunet_fm.encoders.families.dinov3 import to_dinov3
from nnunet_fm.encoders.loading.metadata import write_encoder
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.recipe_files import parse_recipe
from nnunet_fm_pretrain.methods.registry import make_objective

OWN = "as its author says"
DERIVATIVE = "a derivative of the weights it started from, to be passed on under their terms (Meta's: DINOv3 License)"


def export(run: Path, out: Path, half: bool = False) -> dict[str, Any]:
    """Write the encoder that a run trained (BrainDINO: the teacher's).

    Args:
        run: run folder, or one of its checkpoints.
        out: `.pth` or `.safetensors`; `nnunet-fm plan --encoder FILE` takes either.
        half: write float16 tensors, half as large.

    Returns:
        The card that went into the file.

    Raises:
        FileNotFoundError, ValueError: no checkpoint, or another ending.
    """
    content = checkpoints.load(checkpoints.latest(run))
    recipe = parse_recipe(content["recipe"], str(run))
    objective = make_objective(recipe)
    objective.load_state_dict(content["objective"])
    encoder, architecture, options = objective.exported()
    subjects = content["subjects"]
    card = {
        "card": f"{architecture}.trained",
        "architecture": architecture,
        "options": dict(options),
        "step": content["step"],
        "steps": recipe.optimiser.steps,
        "datasets": ", ".join(sorted({s.split("/")[0] for s in subjects})),
        "subjects": len(subjects),
        "subjects_sha256": hashlib.sha256("\n".join(subjects).encode()).hexdigest(),
        "store_sha256": content["store"],
        "licence": content["licence"],
        "recipe": json.dumps(content["recipe"]),
    }
    state = {k: v.half() if half else v for k, v in to_dinov3(encoder.state_dict()).items()}
    with torch.no_grad():
        write_encoder(out, state, card)
    return card
