"""`nnunet-fm trainers-path` and `nnunet-fm exec`."""

import sys

import pytest

from helpers.nnunet import Run
from nnunet_fm.internal.folders import folder


@pytest.mark.parametrize(("path", "execute"), [("trainers-path", "exec"), ("path", "run")])
def test_path_and_run(run: Run, path: str, execute: str) -> None:
    assert (
        run("nnunet-fm", path, nnUNet_extTrainer="/mine").stdout.strip()
        == f"/mine:{folder('trainers')}"
    )
    output = run(
        "nnunet-fm",
        execute,
        sys.executable,
        "-c",
        "import os; print(os.environ['nnUNet_extTrainer'])",
    ).stdout
    assert output.strip() == str(folder("trainers"))
    assert "no command" in run("nnunet-fm", execute, "nnUNetv3_train", expect=2).stdout
    assert run("nnunet-fm", execute, sys.executable, "-c", "raise SystemExit(7)", expect=7)


def test_exec_hands_on_every_word(run: Run) -> None:
    program = "import sys; print(sys.argv[1:])"
    words = ["-h", "--debug", "--help", "a=b", "--", "-x"]
    output = run("nnunet-fm", "exec", sys.executable, "-c", program, *words).stdout
    assert output.strip() == str(words)
    assert "no command given" in run("nnunet-fm", "exec", expect=2).stdout
    assert "usage: nnunet-fm exec" in run("nnunet-fm", "exec", "-h").stdout


def test_an_unknown_trainer_is_named_with_close_matches(run: Run) -> None:
    output = run(
        "nnunet-fm", "exec", "nnUNetv2_train", 7, "2d", 0, "-tr", "FrozenDynoTrainer", expect=2
    ).stdout
    assert "Did you mean FrozenDinoTrainer" in output
