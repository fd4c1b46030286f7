"""SLURM's resources are checked by submitit."""

from pathlib import Path
from typing import Any

import pytest

from helpers.runs import WRITE, fake
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.slurm import batch_file


@pytest.mark.parametrize(
    ("slurm", "message"),
    [({}, "slurm: no time; give the minutes"), ({"partitoin": "gpu", "time": 60}, "partitoin")],
)
def test_resources_that_slurm_does_not_know_say_so(
    slurm: dict[str, Any], message: str, tmp_path: Path
) -> None:
    sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "slurm": slurm})
    with pytest.raises(ValueError, match=message):
        batch_file([fake(tmp_path, 0, WRITE)], sweep, tmp_path)
