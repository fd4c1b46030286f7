"""A sweep from Python and from the command line."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from helpers.runs import SMALL_SWEEP as SMALL
from nnunet_fm.cli.main import main
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.execute import RunOutcome
from nnunet_fm.experiments.run_sweep import run_sweep
from nnunet_fm.experiments.runs import Run, State, read_runs


def test_more_checkpoints_than_disk_are_refused_before_anything_runs(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SMALL))
    words = ["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "sweep")]
    assert main(words) == 2
    assert "point nnUNet_results to a larger disk" in capsys.readouterr().err
    assert not (tmp_path / "sweep" / "logs").exists()
    assert main([*words, "--dry-run"]) == 0


def test_a_sweep_runs_from_python(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[list[Run]] = []

    def train(
        runs: list[Run],
        sweep: Sweep,
        folder: Path,
        on_outcome: Callable[[RunOutcome], None],
    ) -> list[RunOutcome]:
        trained.append(runs)
        outcomes = [RunOutcome(run.name, State.FAILED, 60, "no", "log") for run in runs]
        for outcome in outcomes:
            on_outcome(outcome)
        return outcomes

    monkeypatch.setattr("nnunet_fm.experiments.run_sweep.run_locally", train)
    lines: list[str] = []
    outcomes = run_sweep(Sweep.model_validate(SMALL), tmp_path / "sweep", report=lines.append)
    assert [outcome.state for outcome in outcomes] == ["failed"]
    assert lines == [f"{outcomes[0].run}: failed after 1.0 min no"]
    assert trained == [read_runs(tmp_path / "sweep")]


def test_the_former_key_of_parallel_runs_is_read() -> None:
    assert Sweep.model_validate(SMALL | {"at_a_time": 3}).max_parallel == 3
    assert Sweep.model_validate({**SMALL, "device": "cuda", "gpus": [0, 1]}).max_parallel == 2
    with pytest.raises(ValueError, match="give one of them"):
        Sweep.model_validate(SMALL | {"at_a_time": 3, "max_parallel": 2})
