"""Wrong names are answered with the right ones; settings and trainers are known."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.catalogue import TRAINERS, catalogue
from helpers.planned_dataset import NAME, Planned, Said
from nnunet_fm.cli import doctor

PREDICT = ["predict", "-i", ".", "-o", "out", "-d", "31"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pln", "-d", "31"], "unknown command 'pln'. Did you mean plan"),
        (["features", "extrct"], "unknown command 'extrct'. Did you mean extract"),
        (["sweep", "stauts", "x"], "unknown command 'stauts'. Did you mean status"),
        (["plan", "-d", "31", "--encoder", "none", "-p", "Nope"], "Allowed: nnUNetPlans."),
        (["plan", "-d", "31", "--encoder", "none", "--mix-slices", "2"], "choose from 1, 3, 5"),
        (["plan", "-d", "32", "--encoder", "none"], "-d 32 -c 2d` first"),  # raw alone
        (
            ["plan", "-d", "99", "--encoder", "none"],
            "Made (raw, preprocessed, results), Dataset032_Raw (raw)",
        ),
        (["plan", "-d", "Dataset099_X", "--encoder", "none"], "no dataset Dataset099_X"),
        (["predict", "-tr", "Nope", "-d", "31"], "nnunet-fm has FineTunedDinoTrainer"),
        (["predict", "-tr", "FrozenDinoTrain"], "Did you mean FrozenDinoTrainer"),
        ([*PREDICT, "-c", "2d", "-p", "Nope"], "has -tr FrozenDinoTrainer -p FM_x -c"),
        (
            [*PREDICT, "-c", "2d_fm32", "-p", "FM_x", "-tr", "FrozenDinoTrainer"],
            "of fold 0, 1, 2, 3, 4; type -f all",
        ),
        (["features", "extract", "file", "--encoder", "x", "--cache", "file"], "file is a file"),
        (["features", "list", "--cache", "file"], "file is a file; allowed: a folder"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(
    words: list[str], message: str, made: Callable[[int], Planned], said: Said
) -> None:
    planned = made(10)
    (planned.raw / "Dataset032_Raw").mkdir()
    Path("file").touch()
    fold = planned.results / NAME / "FrozenDinoTrainer__FM_x__2d_fm32" / "fold_all"
    fold.mkdir(parents=True)
    (fold / "checkpoint_final.pth").touch()
    (fold.parent / "plans.json").touch()
    assert message in said(*words, code=2)


@pytest.mark.parametrize("name", ["nnUNet_n_proc_DA", "nnUNet_def_n_proc"])
@pytest.mark.parametrize(("value", "level"), [("0", "fail"), ("two", "fail"), ("2", "ok")])
def test_the_doctor_knows_numbers_of_processes_that_break_nnunet(
    name: str, value: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    finding = doctor._check_workers(name)
    assert finding.level == level
    assert (f"export {name}=1" in finding.fix) == (level == "fail")


def test_every_trainer_stands_in_the_documentation_with_its_length() -> None:
    table = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text()
    for name in TRAINERS:
        trainer = getattr(catalogue(), name)
        recipe = getattr(trainer, "recipe", None)
        lengths = (1000, 250)  # nnU-Net's own
        if recipe is not None:
            lengths = (recipe.epochs, recipe.iterations)
        elif trainer.schedule is not None:
            lengths = trainer.schedule[:2]
        assert f"| `{name}` | {lengths[0]} | {lengths[1]} |" in table
