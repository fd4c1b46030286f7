"""`heads finetune` from a table to results."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nnunet_fm import heads
from nnunet_fm.cli.main import main
from nnunet_fm.features.opening import open_encoder
from nnunet_fm.heads.finetune.training import train
from nnunet_fm.heads.saved_runs import FinishedRun
from nnunet_fm.heads.task_data import TaskInputs

QUICK = ("finetune.epochs=3", "finetune.batch_size=4", "finetune.learning_rate=0.01", "folds=2")
ENCODER = "volta3d_test8"
SIDE = 16


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty heads; those of class `b` have a bright half."""
    folder = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    file = folder / "subjects.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["subject_id", "T1", "label", "age"])
        for subject in range(20):
            values = 50 + 5 * rng.standard_normal((18, 20, 22))
            if subject % 2:
                values[:, :, 11:] += 60
            image = nib.Nifti1Image(values.astype(np.float32), np.eye(4))
            nib.save(image, folder / f"{subject}.nii.gz")
            writer.writerow([f"s{subject}", f"{subject}.nii.gz", "ab"[subject % 2], 20 + subject])
    return file


def inputs_of(table: Path, cache: Path, *overrides: str) -> TaskInputs:
    keys = ["target=label", *QUICK, *overrides]
    return heads.open_task("classification", table, cache, keys, kind=heads.FineTuneTask)


def finetuned(
    inputs: TaskInputs, out: Path, encoder: str = ENCODER, seed: int | None = None
) -> FinishedRun:
    module, recipe = open_encoder(encoder, seed=seed, shape=(SIDE,) * 3, precision="float32")
    data = heads.finetune_data(inputs, module, recipe, out, processes=0)
    return heads.run_task(data, out, figures=False)


def run(table: Path, work: Path, *overrides: str, **encoder: Any) -> FinishedRun:
    return finetuned(inputs_of(table, work / "cache", *overrides), work / "heads", **encoder)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings and the seed of every training, in order."""
    calls: list[Any] = []

    def record(*arguments: Any) -> Any:
        calls.append(arguments[-2:])
        return train(*arguments)

    monkeypatch.setattr("nnunet_fm.heads.finetune.fitter.train", record)
    return calls


def test_a_task_is_learned_and_a_rerun_reads_what_was_trained(
    table: Path, tmp_path: Path, trained: list[Any]
) -> None:
    overrides = ("finetune.unfreeze=all", "finetune.epochs=12", "finetune.validation=0")
    found = run(table, tmp_path, *overrides)
    auc = {r.model: r.value for r in found.results if r.metric == "AUC"}
    assert auc["finetuned"] > 0.9
    assert auc["trivial"] == pytest.approx(0.5)
    assert {r.tested for r in found.results} == {"2 folds"}
    assert found.about["encoder"].endswith("-unfrozen_all")
    trainings = sorted((tmp_path / "heads" / "trainings").glob("*.safetensors"))
    assert len(trainings) == len(trained) == 2
    for file in found.folder.glob("ratio_*.json"):
        file.unlink()
    assert run(table, tmp_path, *overrides).results == found.results
    assert len(trained) == 2
    trainings[0].write_bytes(trainings[0].read_bytes()[:100])
    for file in found.folder.glob("ratio_*.json"):
        file.unlink()
    with pytest.raises(ValueError, match=r"is damaged .*; delete it, and rerun the command"):
        run(table, tmp_path, *overrides)


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        (("seeds=2",), 2),
        (("ratios=[0.5,1.0]", "finetune.validation=0.25"), 4),
        (("neighbours=[3]", "head.steps=7"), 0),
        (("youden_folds=2", "finetune.validation=0"), 6),
        (("finetune.epochs=2",), 2),
        (("finetune.unfreeze=1",), 2),
    ],
)
def test_a_training_is_repeated_only_if_its_weights_would_differ(
    changes: tuple[str, ...], more: int, table: Path, tmp_path: Path, trained: list[Any]
) -> None:
    run(table, tmp_path)
    run(table, tmp_path, *changes)
    assert len(trained) == 2 + more


def test_another_target_of_the_same_volumes_is_another_training(
    table: Path, tmp_path: Path, trained: list[Any]
) -> None:
    run(table, tmp_path)
    swapped = table.parent / "swapped.csv"
    text = table.read_text().replace(",a,", ",x,").replace(",b,", ",a,")
    swapped.write_text(text)  # other names of the classes
    run(swapped, tmp_path)
    assert len(trained) == 4
    swapped.write_text(text.replace(",x,", ",b,"))  # the same names for other subjects
    run(swapped, tmp_path)
    assert len(trained) == 6


def test_a_finished_run_needs_no_volumes(table: Path, tmp_path: Path, trained: list[Any]) -> None:
    found = run(table, tmp_path)
    assert len(list((tmp_path / "cache" / "volumes").rglob("*.safetensors"))) == 20
    main(["features", "gc", "--cache", str(tmp_path / "cache"), "--keep", str(table)])
    assert len(list((tmp_path / "cache" / "volumes").rglob("*.safetensors"))) == 20
    other = table.parent / "one.csv"
    other.write_text("\n".join(table.read_text().splitlines()[:2]))
    main(["features", "gc", "--cache", str(tmp_path / "cache"), "--keep", str(other)])
    assert len(list((tmp_path / "cache" / "volumes").rglob("*.safetensors"))) == 1
    assert run(table, tmp_path).results == found.results
    assert len(list((tmp_path / "cache" / "volumes").rglob("*.safetensors"))) == 1


def test_the_same_seed_gives_the_same_predictions_and_leaves_the_generator(
    table: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = run(table, tmp_path / "a")
    assert torch.equal(torch.rand(1), expected)
    assert first.results == run(table, tmp_path / "b").results


def test_a_frozen_encoder_has_a_trained_head(table: Path, tmp_path: Path) -> None:
    run(table, tmp_path, "finetune.unfreeze=0")
    (file, *_) = (tmp_path / "heads" / "trainings").iterdir()
    assert set(load_file(file)) == {"head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"}


def test_encoders_share_volumes_and_are_compared(table: Path, tmp_path: Path) -> None:
    first = run(table, tmp_path, "finetune.epochs=1")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.safetensors")}
    second = run(table, tmp_path, "finetune.epochs=1", seed=1)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.safetensors")} == files
    third = run(table, tmp_path, "finetune.epochs=1", "finetune.unfreeze=0")
    comparisons = heads.compare([first, second, third])
    names = {c.first for c in comparisons} | {c.second for c in comparisons}
    assert len(names) == 3
    damaged = next(iter(files))
    damaged.write_bytes(damaged.read_bytes()[:-50])
    run(table, tmp_path, "finetune.epochs=2")
    assert damaged.stat().st_mtime_ns != files[damaged]  # prepared again


def test_encoders_of_slices_see_all_slices(table: Path, tmp_path: Path) -> None:
    found = run(table, tmp_path, "finetune.unfreeze=1", encoder="dinov3_test16")
    assert {r.model for r in found.results} == {"finetuned", "trivial"}


def test_youdens_threshold_is_chosen_among_training_cases(table: Path, tmp_path: Path) -> None:
    found = run(table, tmp_path, "youden_folds=2", "finetune.validation=0")
    metrics = {r.metric for r in found.results if r.model == "finetuned"}
    assert {"sensitivity for b", "specificity for b"} <= metrics


def test_regression_is_in_the_units_of_the_target(table: Path, tmp_path: Path) -> None:
    keys = ["target=age", *QUICK]
    task = heads.open_task("regression", table, tmp_path / "c", keys, kind=heads.FineTuneTask)
    found = finetuned(task, tmp_path / "o")
    mae = {r.model: r.value for r in found.results if r.metric == "MAE"}
    assert 2 < mae["finetuned"] < 15
    assert 2 < mae["trivial"] < 10


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["finetune.unfreeze=-1"], "finetune.unfreeze: allowed: a number of blocks .*given: -1"),
        (["finetune.unfreeze=true"], "finetune.unfreeze: allowed: a number of blocks"),
        (["finetune.unfreezed=1"], "finetune.unfreezed"),
        (["finetune.validation=0.9"], "finetune.validation: allowed: 0, or 0.05 to 0.5"),
        (["finetune.validation=1e-320"], "finetune.validation: allowed: 0, or 0.05 to 0.5"),
        (["protocol=paper"], "protocol=paper is BrainDINO's"),
        (["kind=survival", "event=died", "head.batch_size=null"], "kind survival compares"),
        (["kind=regression", "finetune.balanced=true"], "finetune.balanced is for classification"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    overrides: list[str], message: str, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        inputs_of(table, tmp_path, *overrides)


def _few(inputs: TaskInputs) -> TaskInputs:
    return replace(inputs, table=replace(inputs.table, rows=inputs.table.rows[:4]))


def _for_heads(inputs: TaskInputs) -> TaskInputs:
    plain = heads.open_task(
        "classification", inputs.table.file, inputs.cache.folder, ["target=label"]
    )
    return replace(plain, cache=inputs.cache)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_few, "too few for finetune.validation"),
        (_for_heads, "is for heads on features"),
    ],
)
def test_tasks_that_cannot_be_trained_are_refused_before_the_volumes_are_read(
    change: Callable[[TaskInputs], TaskInputs], message: str, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        finetuned(change(inputs_of(table, tmp_path)), tmp_path / "o")
    assert not (tmp_path / "volumes").exists()


def test_several_volumes_per_case_and_bad_volumes_are_refused(table: Path, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    two = table.parent / "two.csv"
    two.write_text("\n".join([lines[0] + ",T2", *(f"{x},{x.split(',')[1]}" for x in lines[1:])]))
    with pytest.raises(ValueError, match=r"volumes of T1, T2, .*modalities=\[T1\]"):
        finetuned(inputs_of(two, tmp_path), tmp_path / "o")
    (table.parent / "bad.nii.gz").write_text("no image")
    lines[3] = lines[3].replace("2.nii.gz", "bad.nii.gz")
    bad = table.parent / "bad.csv"
    bad.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="1 volume cannot be used: s2 T1"):
        finetuned(inputs_of(bad, tmp_path), tmp_path / "o")


def test_the_command_line(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["heads", "finetune", "classification", "target=label", *QUICK]
    where = ["--table", str(table), "--cache", str(tmp_path / "c"), "-o", str(tmp_path / "o")]
    options = ["--encoder", ENCODER, "--seed", "3", "--shape", "24", "24", "24", "-np", "0"]
    options += ["--spacing", "1", "1", "1"]
    assert not main([*command, *where, *options])
    out = capsys.readouterr().out
    assert "20 cases of 20 subjects" in out
    assert "finetuned" in out
    assert "trivial" in out
    assert main([*command, *where, *options, "finetune.unfreeze=99"])
    assert "finetune.unfreeze=99; allowed: 0 to" in capsys.readouterr().err
