"""Everything is checked before anything starts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import SMALL_SWEEP as SMALL
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.planner import plan_sweep
from nnunet_fm.experiments.runs import read_runs, write_runs


@pytest.fixture(autouse=True)
def _no_splits(dataset: Path) -> Iterator[None]:
    """Hide the splits that nnU-Net made if a training of another test has run before."""
    splits = dataset / "splits_final.json"
    content = splits.read_text() if splits.is_file() else None
    splits.unlink(missing_ok=True)
    yield
    splits.unlink(missing_ok=True)
    if content is not None:
        splits.write_text(content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": [999]}, "no dataset 999 in nnU-Net's folders; there are: Dataset007_Small"),
        ({"encoders": {"a": {"encoder": "dinov3_tset16"}}}, "dinov3_tset16"),
        (
            {"encoders": {"a": {"encoder": "dinov3_test16", "trainer": "FrozenDinoTrainr"}}},
            "Did you mean FrozenDinoTr",
        ),
        (
            {"encoders": {"a": {"encoder": "dinov3_test16", "configuration": "2dd"}}},
            "unknown configuration '2dd'",
        ),
        ({"encoders": {"a": {"encoder": "none", "taps": [1]}}}, "--taps has no meaning"),
        (
            {"encoders": {"a": {"encoder": "none", "encoder_options": {"x": 1}}}},
            "--encoder-option has no meaning",
        ),
        ({"encoders": {"a": {"encoder": "none", "tokens": "off"}}}, "--tokens has no meaning"),
        (
            {"expected": {7: {"cases": 1251}}},
            "has 6 labelled cases, the sweep expects 1251; convert it again",
        ),
        (
            {"expected": {7: {"cases": 6, "labels": ["cavity"]}}},
            "no label 'cavity'; it has background, whole tumor",
        ),
        ({"splits": {"file": "nowhere.json"}}, "nowhere.json does not exist"),
    ],
)
def test_requests_that_cannot_run_are_refused_before_anything_starts(
    changes: dict[str, Any], message: str, folders: tuple[Path, Path]
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        plan_sweep(Sweep.model_validate(SMALL | changes), *folders)


def test_every_run_has_plans_and_a_folder_of_its_own(folders: tuple[Path, Path]) -> None:
    encoders = {
        "a": {"encoder": "dinov3_test16"},
        "b": {"encoder": "dinov3_test16", "seed": 1},
        "stock": {},
    }
    sweep = Sweep.model_validate(
        SMALL
        | {"encoders": encoders, "ratios": [0.5, 1.0], "seeds": [1, 2], "folds": [0, 1]}
        | {"splits": {"folds": 3}}
    )
    planned = plan_sweep(sweep, *folders)
    assert not list(folders[0].rglob("SW_*"))
    planned.write()
    assert len(planned.runs) == 24
    assert (
        len({run.folder for run in planned.runs}) == len({run.name for run in planned.runs}) == 24
    )
    first = planned.runs[0]
    assert first.plans == "SW_a_r050_s1"
    words = [
        "nnUNetv2_train",
        "7",
        "2d_fm256",
        "0",
        "-tr",
        "FrozenDinoTrainer",
        "-p",
        "SW_a_r050_s1",
        "-device",
        "cpu",
    ]
    assert first.command("cpu") == words
    assert planned.runs[-1].command("cpu")[2:6] == ["2d", "1", "-tr", "SubsetTrainer"]
    assert not planned.preprocessing
    fitted = {"encoders": {"c": {"encoder": "dinov3_test16", "patch": [32, 32], "fov": "fit"}}}
    words = plan_sweep(
        Sweep.model_validate(SMALL | fitted | {"ratios": [0.5, 1]}), *folders
    ).preprocessing
    assert [w[0] for w in words] == ["nnUNetv2_preprocess"]  # once for all ratios
    with pytest.raises(ValueError, match="SW_a_r100_s1 exist already, with another encoder of"):
        other = {"encoders": {"a": {"encoder": "dinov3_test16", "seed": 5}}, "seeds": [1]}
        plan_sweep(Sweep.model_validate(SMALL | other), *folders)


def test_a_sweep_seeds_its_trainings_and_leaves_others_as_they_were(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    encoders = {"a": {"encoder": "dinov3_test16"}, "stock": {}}
    unseeded = plan_sweep(Sweep.model_validate(SMALL | {"encoders": encoders}), *folders)
    assert [run.plans for run in unseeded.runs] == ["SW_a_r100_s42", "SW_stock_r100_s42"]
    assert not any("training_seed" in plans.content for plans in unseeded.plans.values())
    sweep = Sweep.model_validate(SMALL | {"encoders": encoders, "training_seeds": [0, 1]})
    planned = plan_sweep(sweep, *folders)
    found = {run.plans: run.training_seed for run in planned.runs}
    assert found == {
        "SW_a_r100_s42_t0": 0,
        "SW_a_r100_s42_t1": 1,
        "SW_stock_r100_s42_t0": 0,
        "SW_stock_r100_s42_t1": 1,
    }
    of_plans = {name: plans.content["training_seed"] for (_, name), plans in planned.plans.items()}
    assert of_plans == found
    write_runs(planned.runs, tmp_path)
    assert read_runs(tmp_path) == planned.runs


NEW = {"encoder": "dinov3_test16", "seed": 5}


def test_runs_that_are_added_keep_the_decoder_of_the_others(folders: tuple[Path, Path]) -> None:
    """As in a sweep of version 0.1, whose default was primus, with one ratio more."""

    def decoders(ratios: list[float], **options: str) -> set[str]:
        arms = {"kept": {"encoder": "dinov3_test16", **options}, "kept_r": NEW}
        planned = plan_sweep(Sweep.model_validate(SMALL | {"encoders": arms, "ratios": ratios}),
                             *folders)  # fmt: skip
        planned.write()
        found = {}
        for run in planned.runs:
            content = planned.plans[run.dataset, run.plans].content["configurations"]
            arguments = content[run.configuration]["architecture"]["arch_kwargs"]
            found.setdefault(run.encoder, set()).add(arguments["decoder"])
        assert found["kept_r"] == {"detail"}
        return found["kept"]

    assert decoders([0.5], decoder="primus") == {"primus"}
    assert decoders([0.5, 1.0]) == {"primus"}
