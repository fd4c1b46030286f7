"""The shell scripts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("name", ["data_ratio_sweep.sh", "brats_benchmark.sh"])
def test_the_scripts_say_how_they_are_used(name: str) -> None:
    said = subprocess.run(["bash", SCRIPTS / name], capture_output=True, text=True)
    assert said.returncode == 2
    assert f"scripts/{name} " in said.stderr


def test_the_ratio_script_plans_a_sweep(
    dataset: Path, nnunet: dict[str, str], tmp_path: Path
) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = [
        "bash",
        SCRIPTS / "data_ratio_sweep.sh",
        "7",
        "dinov3_test16",
        "0.5,1.0",
        "device=cpu",
        "--dry-run",
    ]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env=os.environ | nnunet | {"PATH": path},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert "4 new" in done.stdout
    assert "007_frozen_r0.5_s42_f0" in done.stdout
    assert "007_stock_2d_r1_s42_f0" in done.stdout
