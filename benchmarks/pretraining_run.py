"""The networks of a pretraining run, for the benchmarks of what it learned."""

from pathlib import Path
from typing import Any

from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.start import parse_earlier
from nnunet_fm_pretrain.methods.registry import method_of


def read_objective(run: Path, random: bool) -> Any:
    """Return the objective of a run's last checkpoint, or with its initial weights."""
    content = checkpoints.load(checkpoints.latest(run))
    method = method_of(content["recipe"])
    made: Any = method.build(parse_earlier(content, method, run))
    if not random:
        made.load_state_dict(content["objective"])
    return made.eval()
