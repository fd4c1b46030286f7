"""Scores, means and tests of runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from helpers.runs import CASES, DATASET, ENCODERS, Made, image, labels, scored
from nnunet_fm.evaluation import score_cache as remembered
from nnunet_fm.evaluation.metrics import dice
from nnunet_fm.evaluation.paired_tests import holm
from nnunet_fm.experiments.encoder_runs import group_runs
from nnunet_fm.experiments.find_runs import find_runs
from nnunet_fm.experiments.report.tables import summary_table
from nnunet_fm.experiments.run_cost import cost_of, provenance_of
from nnunet_fm.experiments.run_scores import ScoredRun, score_runs
from nnunet_fm.experiments.summary import (
    METRICS,
    compare_encoders,
    summarise,
    train_cases_by_ratio,
)
from nnunet_fm.nnunet.splits import SEEN


def expected(shift: int, seed: int, region: tuple[int, ...]) -> list[float]:
    pairs = [(labels(n, shift + n % 2 * (seed - 1)), labels(n)) for n in range(len(CASES))]
    return [dice(np.isin(p, region), np.isin(t, region)) for p, t in pairs]


def test_means_are_over_cases_of_the_mean_over_seeds(made: Made) -> None:
    found = summarise(group_runs(score_runs(made.runs, made.preprocessed, workers=1)))
    (poor,) = (
        s
        for s in found
        if (s.encoder, s.ratio, s.region, s.metric) == ("poor", 0.2, "core", "dice")
    )
    of_seeds = np.array([expected(5, seed, (2,)) for seed in (1, 2)])
    assert poor.mean == pytest.approx(of_seeds.mean())
    assert poor.sd == pytest.approx(of_seeds.mean(0).std(ddof=1))
    assert poor.sd_seeds == pytest.approx(of_seeds.mean(1).std(ddof=1))
    assert (poor.cases, poor.seeds, poor.train_cases) == (4, 2, 2)
    assert poor.low <= poor.mean <= poor.high
    assert {s.region for s in found} == {"whole", "core", "mean"}
    assert [
        s.encoder for s in found if s.ratio == 0.2 and s.region == "core" and s.metric == "dice"
    ] == [
        "good",
        "stock",
        "poor",
    ]


def test_tests_are_paired_over_cases_and_adjusted_over_ratios_and_encoders(made: Made) -> None:
    tests = compare_encoders(
        group_runs(score_runs(made.runs, made.preprocessed, workers=1)), list(ENCODERS)
    )
    family = [t for t in tests if (t.region, t.metric) == ("whole", "dice")]
    assert [(t.ratio, t.reference, t.other) for t in family] == [
        (0.2, "good", "stock"),
        (0.2, "good", "poor"),
        (1.0, "good", "stock"),
        (1.0, "good", "poor"),
    ]
    assert [t.wilcoxon_holm for t in family] == pytest.approx(holm([t.wilcoxon_p for t in family]))
    values = [
        np.mean([expected(shift, seed, (1, 2)) for seed in (1, 2)], axis=0) for shift in (0, 4)
    ]
    last = family[-1]
    assert last.difference == pytest.approx((values[1] - values[0]).mean())
    assert last.wilcoxon_p == pytest.approx(stats.wilcoxon(values[1] - values[0]).pvalue)
    assert last.rank_biserial == -1.0
    assert last.low <= last.difference <= last.high < 0
    others = compare_encoders(
        group_runs(score_runs(made.runs, made.preprocessed, workers=1)), list(ENCODERS), "poor"
    )
    assert {t.reference for t in others} == {"poor"}
    with pytest.raises(ValueError, match="Did you mean good"):
        compare_encoders(
            group_runs(score_runs(made.runs, made.preprocessed, workers=1)), list(ENCODERS), "god"
        )


def test_unfinished_runs_are_left_out_and_only_shared_seeds_compared(made: Made) -> None:
    (gone,) = (r for r in made.runs if (r.encoder, r.ratio, r.seed) == ("poor", 1.0, 2))
    (gone.folder / "checkpoint_final.pth").unlink()
    found = group_runs(score_runs(made.runs, made.preprocessed, workers=1))
    (test,) = (
        t
        for t in compare_encoders(found, list(ENCODERS))
        if (t.other, t.ratio, t.region, t.metric) == ("poor", 1.0, "whole", "dice")
    )
    assert test.seeds == 1
    assert test.difference == pytest.approx(
        np.mean(expected(4, 1, (1, 2))) - np.mean(expected(0, 1, (1, 2)))
    )


def test_missing_predictions_and_other_cases_are_refused(made: Made) -> None:
    run = made.runs[3]
    (run.folder / "validation" / "b.1.nii.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks the prediction of b\.1; type: nnUNetv2_train 9 .* --val"
    ):
        score_runs(made.runs, made.preprocessed, workers=1)
    (
        made.preprocessed / DATASET / "splits_final.json"
    ).unlink()  # so each run's own predictions are its cases
    with pytest.raises(ValueError, match=r"validated different cases: b\.1"):
        score_runs(made.runs, made.preprocessed, workers=1)


def test_one_case_has_a_mean_and_no_interval(made: Made) -> None:
    split = {"train": ["t0"], "val": ["a"]}
    (made.preprocessed / DATASET / "splits_final.json").write_text(json.dumps([split]))
    with pytest.raises(
        ValueError,
        match=r"prediction of b\.1, c, d, which fold 0 of .* was trained on another split",
    ):
        score_runs(made.runs, made.preprocessed, workers=1)
    for run in made.runs:
        for case in CASES[1:]:
            (run.folder / "validation" / f"{case}.nii.gz").unlink()
    found = group_runs(score_runs(made.runs, made.preprocessed, workers=1))
    summaries, tests = summarise(found), compare_encoders(found, list(ENCODERS))
    assert {s.cases for s in summaries} == {1}
    assert all(np.isnan([s.low, s.high, s.sd]).all() and np.isfinite(s.mean) for s in summaries)
    assert all(
        np.isnan([t.wilcoxon_p, t.wilcoxon_holm, t.permutation_p, t.low]).all() for t in tests
    )


def test_what_was_scored_is_not_scored_again_until_a_file_changes(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = made.runs[:1]
    before = score_runs(runs, made.preprocessed, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(remembered, "evaluate_folders", lambda *_: pytest.fail("scored again"))
        assert score_runs(runs, made.preprocessed, workers=1) == before
    image(labels(0, 7), runs[0].folder / "validation" / "a.nii.gz")
    after = score_runs(runs, made.preprocessed, workers=1)
    assert after[0].scores[0].dice < before[0].scores[0].dice


def test_runs_are_found_in_nnunets_own_folders(made: Made) -> None:
    found = find_runs([made.results / DATASET])
    assert {(r.encoder, r.ratio, r.seed, r.fold) for r in found} == {
        (e, ratio, seed, 0)
        for e in ("SW_good", "SW_poor", "nnU-Net 2d_fm32")
        for ratio in (0.2, 1.0)
        for seed in (1, 2)
    }
    assert find_runs([made.results / DATASET / found[0].folder.parent.name]) == found[:1]
    assert find_runs([made.sweep, made.sweep]) == made.runs  # given twice, read once
    with pytest.raises(FileNotFoundError, match="holds no runs; allowed: a sweep's folder"):
        find_runs([made.raw])


def test_one_run_in_two_places_is_distinguished_by_its_trainer_or_refused(
    made: Made, tmp_path: Path
) -> None:
    model = made.runs[0].folder.parent
    shutil.copytree(model, model.with_name(model.name.replace("TheTrainer", "OtherTrainer")))
    encoders = {r.encoder for r in find_runs([made.results / DATASET])}
    assert {"SW_good (TheTrainer)", "SW_good (OtherTrainer)"} <= encoders
    copy = tmp_path / "copy" / DATASET / model.name
    shutil.copytree(model, copy)
    with pytest.raises(ValueError, match="are both"):
        find_runs([model, copy])
    copy.parent.rename(tmp_path / "copy" / "elsewhere")
    with pytest.raises(ValueError, match="is not DatasetNNN_NAME"):
        find_runs([tmp_path / "copy" / "elsewhere"])


def test_only_trainings_of_the_same_seed_and_fold_are_paired() -> None:
    """The value depends on the seed alone; unfinished folds may not favour an encoder."""
    folds = [{f"{fold}{n}": 0.5 + n / 100 for n in range(6)} for fold in range(2)]
    better = [{c: d + 0.2 for c, d in fold.items()} for fold in folds]
    of_seed = {1: folds, 2: better}
    one = [("a", 1, 0), ("a", 2, 1)]
    other = [("b", 2, 0), ("b", 1, 1), ("b", 2, 1)]
    found = group_runs(
        [scored(e, seed, fold, of_seed[seed][fold]) for e, seed, fold in (*one, *other)]
    )
    test = next(t for t in compare_encoders(found, ["a", "b"]) if t.metric == "dice")
    assert (test.difference, test.cases, test.seeds) == (0.0, 6, 1)
    alone = group_runs([scored("a", 1, 0, folds[0]), scored("b", 2, 0, better[0])])
    assert compare_encoders(alone, ["a", "b"]) == []


def test_training_seeds_of_one_subset_are_repeats_and_paired() -> None:
    """Another training seed adds 0.1, which may not pass for a difference of encoders."""
    values = {f"c{n}": 0.5 + n / 100 for n in range(6)}

    def run(encoder: str, training_seed: int | None) -> ScoredRun:
        dice = {c: d + (training_seed or 0) / 10 for c, d in values.items()}
        one = scored(encoder, 42, 0, dice)
        return replace(one, run=replace(one.run, training_seed=training_seed))

    found = group_runs([run("a", 1), run("a", 2), run("b", 2), run("b", 3)])
    a = next(s for s in summarise(found) if (s.encoder, s.metric) == ("a", "dice"))
    assert (a.seeds, a.cases) == (2, 6)
    assert (a.mean, a.sd_seeds) == pytest.approx((0.675, 0.1 / 2**0.5))
    test = next(t for t in compare_encoders(found, ["a", "b"]) if t.metric == "dice")
    assert (test.difference, test.seeds) == (0.0, 1)
    mixed = group_runs([run("a", None), run("b", 2), run("b", 3)])  # pairs of one subset seed
    test = next(t for t in compare_encoders(mixed, ["a", "b"]) if t.metric == "dice")
    assert (test.difference, test.seeds) == (pytest.approx(0.25), 1)


def test_seeded_trainings_in_nnunets_folders_are_runs_of_one_encoder(made: Made) -> None:
    model = made.runs[0].folder.parent
    for seed in (1, 2):
        copy = model.with_name(model.name.replace("_s1__", f"_s1_t{seed}__"))
        shutil.copytree(model, copy)
        content = json.loads((copy / "plans.json").read_text()) | {"training_seed": seed}
        (copy / "plans.json").write_text(json.dumps(content))
    runs = [run for run in find_runs([made.results / DATASET]) if run.encoder == "SW_good"]
    found = {run.training_seed: run.name for run in runs if (run.ratio, run.seed) == (0.2, 1)}
    assert found == {
        None: "009_SW_good_r0.2_s1_f0",
        1: "009_SW_good_r0.2_s1_t1_f0",
        2: "009_SW_good_r0.2_s1_t2_f0",
    }
    (group, *_) = group_runs(score_runs(runs, made.preprocessed, workers=1))
    assert group.repeats == [(1, None), (1, 1), (1, 2), (2, None)]
    assert provenance_of(next(run for run in runs if run.training_seed == 2)).training_seed == "2"


def test_the_reference_is_the_first_encoder_whatever_is_finished() -> None:
    values = {"c1": 0.5, "c2": 0.6}
    runs = [scored(e, 1, 0, values) for e in ("first", "second", "third")]
    low = [
        replace(r, run=replace(r.run, ratio=0.1)) for r in runs[1:]
    ]  # the first is not finished at this ratio
    tests = compare_encoders(group_runs([*low, *runs]), ["first", "second", "third"])
    assert {t.reference for t in tests} == {"first"}
    assert {t.ratio for t in tests} == {1.0}


def test_there_is_no_best_while_folds_are_unfinished() -> None:
    full, part = {"c1": 0.5, "c2": 0.6}, {"c2": 0.7}
    for values, bold in ((part, [False, False]), ({"c1": 0.7, "c2": 0.7}, [False, True])):
        summaries = summarise(group_runs([scored("a", 1, 0, full), scored("b", 1, 0, values)]))
        grid = summary_table(DATASET, METRICS[0], summaries, [])
        assert [row[3].best for row in grid.rows] == bold


def test_a_run_that_saw_its_cases_is_neither_best_nor_reference() -> None:
    values = {"c1": 0.5, "c2": 0.6}
    seen = {"c1": 0.8, "c2": 0.9}
    names = [f"s{SEEN}", "a", "b"]
    found = group_runs([scored(n, 1, 0, seen if SEEN in n else values) for n in names])
    grid = summary_table(DATASET, METRICS[0], summarise(found), [])
    assert [row[3].best for row in grid.rows] == [False, True, True]  # the equal ones
    assert {test.reference for test in compare_encoders(found, names)} == {"a"}


def test_a_number_of_training_cases_is_given_where_it_is_one() -> None:
    runs = [scored(name, 1, 0, {"c1": 0.5}) for name in ("a", "b")]
    same = group_runs([replace(run, train_cases=4) for run in runs])
    assert train_cases_by_ratio(same) == {1.0: 4}
    other = group_runs([replace(runs[0], train_cases=4), replace(runs[1], train_cases=5)])
    assert train_cases_by_ratio(other) == {1.0: 0}


def test_a_sweep_and_its_results_folder_are_the_same_runs(made: Made) -> None:
    assert find_runs([made.sweep, made.results / DATASET]) == made.runs


def test_stock_runs_of_one_configuration_are_distinguished_by_plans(made: Made) -> None:
    model = next(
        r.folder.parent for r in made.runs if r.encoder == "stock" and r.ratio == 1 and r.seed == 1
    )
    shutil.copytree(model, model.with_name("TheTrainer__nnUNetResEncUNetLPlans__2d_fm32"))
    encoders = {r.encoder for r in find_runs([made.results / DATASET])}
    assert "nnU-Net 2d_fm32 (nnUNetResEncUNetLPlans)" in encoders


def test_runs_for_other_labels_are_refused(made: Made) -> None:
    description = made.runs[-1].folder.parent / "dataset.json"
    facts = json.loads(description.read_text())
    description.write_text(json.dumps(facts | {"labels": {"background": 0, "whole": 1}}))
    with pytest.raises(ValueError, match="was trained for whole and .* for whole, core"):
        score_runs(made.runs, made.preprocessed, workers=1)


def test_cost_and_provenance_come_from_logs(made: Made) -> None:
    cost = cost_of(made.runs[0])
    assert (cost.parameters, cost.learned, cost.epochs, cost.seconds) == (1000, 600, 1, 30.0)
    assert (cost.peak_bytes, cost.peak_of, cost.checkpoint_bytes) == (2**31, "process", 1000)
    made_by = provenance_of(made.runs[0])
    assert made_by.command == "nnUNetv2_train 9 2d_fm32 0 -tr TheTrainer -p SW_good_r020_s1"
    assert (made_by.encoder, made_by.sha256[:8]) == ("tiny from RANDOM weights, seed 1", "01234567")
    assert made_by.versions.startswith("nnunet-fm 0.1.0, nnunetv2 2.8.1")
    (stock, *_) = (r for r in made.runs if r.encoder == "stock")
    assert provenance_of(stock).encoder == ""
    plans_file = made.runs[0].folder.parent / "plans.json"
    plans = json.loads(plans_file.read_text())
    for configuration in plans["configurations"].values():
        configuration.get("architecture", {}).get("arch_kwargs", {})["tokens"] = "off"
    plans_file.write_text(json.dumps(plans))
    assert provenance_of(made.runs[0]).encoder.endswith("not computed (tokens off)")
