"""Reports: what a page shows was trained and validated as it says."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.runs import CASES, DATASET, REGIONS, image, labels, plans, write_run
from nnunet_fm.data.grids import read_grid
from nnunet_fm.experiments.find_runs import find_runs
from nnunet_fm.experiments.report.cases import _read_labels
from nnunet_fm.experiments.run_checks import check_training_data
from nnunet_fm.experiments.run_scores import score_runs
from nnunet_fm.experiments.runs import Run
from nnunet_fm.nnunet.run_record import RunRecord, write_record
from nnunet_fm.nnunet.training_data import train_labels

TRAINED = [f"t{n}" for n in range(4)]
LABELS = dict.fromkeys(TRAINED, "0123456789abcdef")
Maker = Callable[..., Run]


@pytest.mark.parametrize("value", [256, -1, 1.5])
def test_labels_that_a_picture_cannot_show_are_refused(value: float, tmp_path: Path) -> None:
    array = labels(0).astype(np.float32 if value % 1 else np.int16)
    array[array == 2] = value
    file = tmp_path / "a.nii.gz"
    image(array, file)
    with pytest.raises(ValueError, match=r"a\.nii\.gz has .*(pictures show|no label)"):
        _read_labels(file, read_grid(file))


@pytest.fixture
def preprocessed(tmp_path: Path) -> Path:
    """Make nnUNet_preprocessed of one dataset with one fold."""
    dataset = tmp_path / "preprocessed" / DATASET
    for n, case in enumerate(CASES):
        image(labels(n), dataset / "gt_segmentations" / f"{case}.nii.gz")
    split = {"train": TRAINED, "val": list(CASES)}
    (dataset / "splits_final.json").write_text(json.dumps([split]))
    return dataset.parent


@pytest.fixture
def finished(tmp_path: Path) -> Maker:
    """Make a finished run; arguments are those of the run, its record and its plans."""
    facts = {"labels": {"background": 0, **REGIONS}, "regions_class_order": [1, 2]}

    def make(results: str = "results", **changes: Any) -> Run:
        folder = tmp_path / results / DATASET
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / "dataset.json").write_text(
            json.dumps(facts | {"numTraining": 4, "file_ending": ".nii.gz"})
        )
        record = changes.pop("record", {"train_labels": LABELS})
        architecture = changes.pop("architecture", {})
        run = Run(DATASET, "x", 1.0, 1, 0, "T", "FM_x", "2d_fm32", Path())
        run = replace(run, **changes)
        run = replace(run, folder=folder / f"{run.trainer}__{run.plans}__2d_fm32" / "fold_0")
        write_run(run, 0)
        content = json.loads(json.dumps(plans(run.encoder, run.ratio, run.seed)))
        content["configurations"]["2d_fm32"]["architecture"]["arch_kwargs"] |= architecture
        (run.folder.parent / "plans.json").write_text(json.dumps(content))
        write_record(RunRecord(**record), run.folder)
        return run

    return make


def test_training_cases_are_those_that_were_recorded(finished: Maker, preprocessed: Path) -> None:
    (scored,) = score_runs([finished()], preprocessed, workers=1)
    assert scored.train_cases == len(TRAINED)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"validated": "checkpoint_best.pth"}, "holds the validation of checkpoint_best.pth"),
        ({"train_labels": {**LABELS, "a": "1"}}, "was trained on a, which it has validated"),
        ({"train_labels": {**LABELS, "new": "1"}}, "other cases than fold 0 .* different: new"),
        ({"train_labels": {"t0": "1"}}, "other cases than fold 0 .* different: t1, t2, t3"),
    ],
)
def test_a_validation_that_is_not_what_it_is_called_is_refused(
    record: dict[str, Any], reason: str, finished: Maker, preprocessed: Path
) -> None:
    with pytest.raises(ValueError, match=reason):
        score_runs([finished(record=record)], preprocessed, workers=1)


def test_trainings_with_other_labels_are_not_compared(finished: Maker, preprocessed: Path) -> None:
    former = {"train_labels": LABELS | {"t2": "fedcba9876543210"}}
    runs = [finished(), finished(encoder="stock", plans="FM_none", record=former)]
    with pytest.raises(ValueError, match="were trained with different labels of t2"):
        score_runs(runs, preprocessed, workers=1)


@pytest.mark.parametrize(
    ("architecture", "different"),
    [
        ({"encoder_source": {"card": "tiny", "seed": 1, "sha256": "f" * 64}}, "encoder"),
        ({"taps": [1, 2]}, "taps"),
    ],
)
def test_two_encoders_of_one_name_are_not_one_curve(
    architecture: dict[str, Any], different: str, finished: Maker, preprocessed: Path
) -> None:
    few = {"ratio": 0.5, "plans": "FM_x_r050", "record": {}}
    alike = [finished(), finished("others", **few)]
    assert len(score_runs(alike, preprocessed, workers=1)) == 2
    shutil.rmtree(alike[1].folder)
    other = finished("others", **few, architecture=architecture)
    with pytest.raises(ValueError, match=f"both called x, but differ in {different}"):
        score_runs([alike[0], other], preprocessed, workers=1)


def test_ratios_of_two_trainers_are_not_one_curve(finished: Maker) -> None:
    finished()
    run = finished(trainer="Short", ratio=0.5, plans="FM_x_r050")
    found = find_runs([run.folder.parents[1]])
    assert {one.encoder for one in found} == {"FM_x (T)", "FM_x (Short)"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"t0": None}, "no longer: t0"),
        ({"t9": "1"}, "new: t9"),
        ({"t1": "corrected"}, "with other labels: t1"),
    ],
)
def test_a_sweep_does_not_go_on_with_other_data(
    change: dict[str, str | None], reason: str, finished: Maker, preprocessed: Path
) -> None:
    dataset = preprocessed / DATASET
    (dataset / "dataset.json").write_text('{"file_ending": ".txt"}')
    for case in TRAINED:
        (dataset / "gt_segmentations" / f"{case}.txt").write_text(case)
    run = finished(record={"train_labels": train_labels(dataset, TRAINED, ".txt")})
    check_training_data(run, {"train": TRAINED}, dataset)
    cases = set(TRAINED)
    for case, text in change.items():
        if text is None:
            cases.remove(case)
            continue
        cases.add(case)
        (dataset / "gt_segmentations" / f"{case}.txt").write_text(text)
    with pytest.raises(ValueError, match=reason):
        check_training_data(run, {"train": sorted(cases)}, dataset)


def test_truths_that_were_corrected_after_preprocessing_are_not_scored(
    finished: Maker, preprocessed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    for n, case in enumerate(CASES):
        image(labels(n), tmp_path / "raw" / DATASET / "labelsTr" / f"{case}.nii.gz")
    run = finished()
    assert score_runs([run], preprocessed, workers=1)
    image(labels(0, shift=1), tmp_path / "raw" / DATASET / "labelsTr" / "a.nii.gz")
    with pytest.raises(ValueError, match="gt_segmentations holds other labels of a than .*Remove"):
        score_runs([run], preprocessed, workers=1)
    monkeypatch.delenv("nnUNet_raw")
    assert score_runs([run], preprocessed, workers=1)
