"""`nnunet-fm robustness` where files of a case cannot be read."""

from pathlib import Path

import pytest

from helpers.runs import CASES, DATASET, Made, image, labels
from nnunet_fm.cli.main import main
from nnunet_fm.experiments import perturbed_predictions
from nnunet_fm.experiments.runs import Run


def predict(_: Run, folder: Path, __: str) -> None:
    """Write what a network would, for the images that there are."""
    for file in (folder / "images").glob("*_0000.nii.gz"):
        case = file.name.removesuffix("_0000.nii.gz")
        image(labels(CASES.index(case)), folder / f"{case}.nii.gz")


def test_unreadable_files_of_some_cases_end_no_batch(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(perturbed_predictions, "_predict", predict)
    run = next(run for run in made.runs if run.encoder == "good" and run.ratio == 1)
    (run.folder / "validation" / "a.nii.gz").write_bytes(b"x")
    damaged = made.raw / DATASET / "imagesTr" / "c_0001.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    words = ["robustness", str(made.sweep), "--encoder", "good", "--ratio", "1", "-np", "1"]
    words += ["--seed", str(run.seed), "--perturb", "gamma=2", "-device", "cpu"]
    for _ in range(2):
        assert main(words) == 1
        printed = capsys.readouterr()
        assert "gamma" in printed.out
        assert f"not scored: a of {DATASET}: " in printed.err
        assert f"not scored: c of {DATASET}: c: unreadable: " in printed.err
        assert "to predict it once it is repaired, delete " in printed.err
        assert "Traceback" not in printed.err
    for file in (made.raw / DATASET / "imagesTr").iterdir():
        file.write_bytes(b"x")
    assert main([*words, "--perturb", "gamma=0.5"]) == 2
    assert "unreadable" in capsys.readouterr().err
