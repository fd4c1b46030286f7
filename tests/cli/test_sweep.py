"""A sweep through nnU-Net's own commands: killed, resumed, finished; then robustness and report."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from nnunet_fm.experiments.run_locks import running_runs
from nnunet_fm.nnunet.training_log import read_progress

CONFIG = """
datasets: [7]
encoders:
  tiny: {encoder: dinov3_test16, trainer: FrozenDinoTrainerTest, patch: [32, 32], batch_size: 2}
ratios: [0.5, 1.0]
seeds: [3]
device: cpu
processes: 1
"""


@pytest.fixture
def words(dataset: Path, tmp_path: Path) -> list[object]:
    (tmp_path / "small.yaml").write_text(CONFIG)
    return ["nnunet-fm", "sweep", tmp_path / "small.yaml", "-o", tmp_path / "sweep"]


def test_a_killed_sweep_goes_on_and_a_finished_one_does_nothing(
    words: list[object], nnunet: dict[str, str], run: Callable[..., Any], tmp_path: Path
) -> None:
    printed = run(*words, "--print").stdout.splitlines()
    assert [line.split()[0] for line in printed] == ["nnUNetv2_train"] * 2
    sbatch = run(
        *words, "--dry-run", "--executor", "slurm", "slurm={partition: gpu, time: 60}"
    ).stdout
    assert "2 new" in sbatch
    assert "checkpoints about" in sbatch
    assert "#SBATCH --array=0-1%1" in sbatch
    assert "#SBATCH --partition=gpu" in sbatch

    script = str(Path(sys.executable).parent / "nnunet-fm")
    process = subprocess.Popen(
        [script, *map(str, words[1:])],
        env=os.environ | nnunet,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    model = (
        Path(nnunet["nnUNet_results"])
        / "Dataset007_Small"
        / "FrozenDinoTrainerTest__SW_tiny_r050_s3__2d_fm32"
    )
    while not (model / "fold_0" / "checkpoint_latest.pth").is_file() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "rerun the command to resume" in process.communicate()[0]
    assert process.returncode == 130
    assert not running_runs(tmp_path / "sweep")
    status = run(
        "nnunet-fm", "sweep", "status", tmp_path / "sweep", "--html", tmp_path / "s.html"
    ).stdout
    assert "1 interrupted, 1 new" in status or "1 finished, 1 new" in status

    said = run(*words, "--executor", "submitit").stdout
    assert "007_tiny_r1_s3_f0: finished" in said
    assert "2 finished" in said.splitlines()[-1]
    log = (tmp_path / "sweep/logs/007_tiny_r0.5_s3_f0.log").read_text()
    assert log.count("$ nnUNetv2_train") == 2
    assert log.count("--c\n") == 1
    final = model / "fold_0" / "checkpoint_final.pth"
    before = final.stat().st_mtime_ns
    assert "2 finished" in run(*words).stdout
    assert final.stat().st_mtime_ns == before
    progress = read_progress(model / "fold_0")
    assert (progress.epoch, progress.epochs, progress.seconds_left) == (2, 2, 0)
    refused = run(*words, "encoders.tiny.seed=4", expect=2).stdout
    assert "exist already, with another" in refused
    _look_at_robustness_and_report(run, tmp_path / "sweep", model)


def _look_at_robustness_and_report(run: Callable[..., Any], sweep: Path, model: Path) -> None:
    asked = ("nnunet-fm", "robustness", sweep, "--perturb", "gamma=2", "-device", "cpu", "-np", 1)
    said = run(*asked, "--ratio", 0.5).stdout
    values = dict(re.findall(r"\| tiny \| 0.5 \(2\) \| mean \| gamma \| (\d) \| ([\d.]+) ", said))
    assert list(values) == ["1", "2"]
    clean, changed = (model / "fold_0" / "perturbed" / name for name in ("none", "gamma_2"))
    for file in (model / "fold_0" / "validation").glob("*.nii.gz"):
        one, other, third = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(f / file.name)))
            for f in (file.parent, clean, changed)
        )
        assert (one == other).all()  # what the training's validation gave
        assert (one != third).any()
    assert not list(changed.glob("images*"))
    before = changed.stat().st_mtime_ns
    run(*asked, "--ratio", 0.5)
    assert changed.stat().st_mtime_ns == before  # predicted once
    refused = run(*asked, "--encoder", "tyni", expect=2).stdout
    assert "no finished run matches; there are: tiny at 0.5, seed 3, tiny at 1, seed 3" in refused

    run("nnunet-fm", "report", sweep, "-o", sweep / "report", "-np", 1)
    page = (sweep / "report" / "report.html").read_text()
    assert "Unfinished" not in page
    assert "Dice under perturbations of images at ratio 0.5" in page
    assert 'id="canvas"' in page
    assert re.search(r"<td>[\d.]+ \(process\)</td>", page)  # peak memory, from the real log
