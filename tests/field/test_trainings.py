"""Trainings: resumed with the data they began with, validated on cases they have not seen."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from nnunet_fm.nnunet.record_mixin import RecordRunMixin
from nnunet_fm.nnunet.run_record import read_record

CASES = [f"case{n}" for n in range(5)]


class Stock:
    """What the mixin needs of nnU-Net's trainer."""

    was_initialized = True
    local_rank = 0
    is_ddp = False
    num_epochs = 2
    device = torch.device("cpu")
    dataset_json: ClassVar = {"file_ending": ".txt"}

    def __init__(self, folder: Path, epoch: int = 0, fold: int | str = 0) -> None:
        self.preprocessed_dataset_folder_base = str(folder)
        self.output_folder = str(folder / "fold_0")
        self.network = torch.nn.Linear(1, 1)
        self.logger = SimpleNamespace(get_value=lambda name, step: [])
        self.plans_manager = SimpleNamespace(plans={})
        self.current_epoch = epoch
        self.fold = fold
        self.began = False

    def do_split(self) -> tuple[list[str], list[str]]:
        folds = json.loads(Path(self.preprocessed_dataset_folder_base, "splits.json").read_text())
        return folds["train"], folds["val"]

    def print_to_log_file(self, *words: object) -> None: ...

    def on_train_start(self) -> None:
        self.began = True

    def on_train_end(self) -> None:
        Path(self.output_folder, "checkpoint_final.pth").touch()

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None: ...

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        Path(self.output_folder, "validation", "summary.json").touch()


class Trainer(RecordRunMixin, Stock):
    pass


Start = Callable[..., Trainer]


@pytest.fixture
def trainer(tmp_path: Path) -> Start:
    (tmp_path / "fold_0" / "validation").mkdir(parents=True)
    (tmp_path / "gt_segmentations").mkdir()
    for case in CASES:
        (tmp_path / "gt_segmentations" / f"{case}.txt").write_text(case)
    write_split(tmp_path, CASES[:3], CASES[3:])
    return lambda **arguments: Trainer(tmp_path, **arguments)


def write_split(folder: Path, train: list[str], val: list[str]) -> None:
    (folder / "splits.json").write_text(json.dumps({"train": train, "val": val}))


def finish(trainer: Trainer) -> None:
    trainer.on_train_start()
    trainer.on_train_end()
    trainer.perform_actual_validation()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: write_split(f, CASES[:2], CASES[3:]), "no longer: case2"),
        (lambda f: write_split(f, CASES[:4], CASES[4:]), "new: case3"),
        (
            lambda f: (f / "gt_segmentations" / "case1.txt").write_text("corrected"),
            "with other labels: case1",
        ),
    ],
)
def test_a_training_is_not_resumed_with_other_data(
    change: Callable[[Path], object], reason: str, trainer: Start, tmp_path: Path
) -> None:
    trainer().on_train_start()
    trainer(epoch=1).on_train_start()
    change(tmp_path)
    resumed = trainer(epoch=1)
    with pytest.raises(ValueError, match=f"was trained on other data .*{reason}"):
        resumed.on_train_start()
    assert not resumed.began
    trainer().on_train_start()  # from the beginning


def test_cases_that_were_trained_on_are_not_validated(trainer: Start, tmp_path: Path) -> None:
    finish(trainer())
    write_split(tmp_path, CASES[2:], CASES[:2])  # another file of folds
    with pytest.raises(ValueError, match="was trained on case0, case1, which fold 0"):
        trainer(epoch=2).perform_actual_validation()
    assert (tmp_path / "fold_0" / "validation" / "summary.json").is_file()
    write_split(tmp_path, CASES, CASES)
    finish(trainer(fold="all"))


@pytest.mark.parametrize(
    ("checkpoints", "validated"),
    [
        ([], "checkpoint_final.pth"),
        (["checkpoint_final.pth"], "checkpoint_final.pth"),
        (["checkpoint_final.pth", "checkpoint_best.pth"], "checkpoint_best.pth"),
    ],
)
def test_the_validated_checkpoint_is_recorded(
    checkpoints: list[str], validated: str, trainer: Start, tmp_path: Path
) -> None:
    finish(trainer())
    again = trainer(epoch=2)
    for name in checkpoints:
        again.load_checkpoint(str(tmp_path / "fold_0" / name))
    again.perform_actual_validation()
    record = read_record(tmp_path / "fold_0")
    assert record is not None
    assert (record.validated, list(record.train_labels)) == (validated, CASES[:3])


def test_a_training_from_its_best_checkpoint_validates_its_final_one(
    trainer: Start, tmp_path: Path
) -> None:
    trainer().on_train_start()
    resumed = trainer(epoch=1)
    resumed.load_checkpoint(str(tmp_path / "fold_0" / "checkpoint_best.pth"))
    finish(resumed)
    record = read_record(tmp_path / "fold_0")
    assert record is not None
    assert record.validated == "checkpoint_final.pth"


def test_a_training_that_is_redone_is_not_finished_by_its_former_files(
    trainer: Start, tmp_path: Path
) -> None:
    finish(trainer())
    trainer().on_train_start()
    fold = tmp_path / "fold_0"
    assert not (fold / "validation" / "summary.json").exists()
    assert not (fold / "checkpoint_final.pth").exists()
    assert (fold / "checkpoint_former.pth").exists()


def test_a_validation_that_was_killed_is_not_finished_by_the_former_one(
    trainer: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(trainer())

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stock, "perform_actual_validation", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer(epoch=2).perform_actual_validation()
    assert not (tmp_path / "fold_0" / "validation" / "summary.json").exists()
