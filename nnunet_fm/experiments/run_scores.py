"""Every finished run with its scores, case by case."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_json
from tqdm import tqdm

from nnunet_fm.evaluation.labels import LabelScheme
from nnunet_fm.evaluation.score_cache import cached_scores
from nnunet_fm.evaluation.score_tables import mean_of_regions
from nnunet_fm.evaluation.segmentation import CaseScore, MetricOptions
from nnunet_fm.experiments.datasets import SPLITS
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.train_subset import TrainSubset

MEAN = "mean"  # of the regions, where there are several


@dataclass(frozen=True)
class ScoredRun:
    """A finished run.

    Attributes:
        run: which.
        scores: of its validation cases, region by region, and their mean as a region if there are
            several.
        train_cases: how many it was trained on; 0 if that is not known.
    """

    run: Run
    scores: list[CaseScore]
    train_cases: int

    @property
    def cases(self) -> list[str]:
        """Names, each once."""
        return list(dict.fromkeys(score.case for score in self.scores))


def score_runs(
    runs: Sequence[Run], preprocessed: Path, rules: MetricOptions | None = None, workers: int = 2
) -> list[ScoredRun]:
    """Score the validation of every finished run; what was scored before is read.

    Args:
        runs: any; unfinished ones are left out.
        preprocessed: nnUNet_preprocessed, where the ground truth is.
        rules: what the metrics leave open.
        workers: processes.

    Raises:
        FileNotFoundError: a prediction is missing.
        ValueError: runs of one dataset and fold validated different cases.
    """
    finished = [run for run in runs if run.state() is State.FINISHED]
    cases = {run: validation_cases(run, preprocessed) for run in finished}
    _check_same(cases)
    return [
        score_run(run, cases[run], preprocessed, rules or MetricOptions(), workers)
        for run in tqdm(finished, desc="runs")
    ]


def validation_cases(run: Run, preprocessed: Path) -> list[str]:
    """Names of the cases that a run's fold validates, checked against its predictions.

    Raises:
        FileNotFoundError: a prediction is missing.
        ValueError: the run was trained on another split.
    """
    ending, folder = (
        LabelScheme.read(run.folder.parent / "dataset.json").ending,
        run.folder / "validation",
    )
    split = _split(run, preprocessed)
    there = {p.name.removesuffix(ending) for p in folder.glob(f"*{ending}")}
    wanted = sorted(split["val"]) if split else sorted(there)
    if strange := sorted(there - set(wanted)):
        raise InputError(
            f"{folder} holds the prediction of {some(strange)}, which fold {run.fold} of "
            f"{preprocessed / run.dataset / SPLITS} does not validate: {run.name} was trained on another split. "
            "Restore that file, or leave this run out"
        )
    if missing := [case for case in wanted if case not in there]:
        raise MissingFileError(
            f"{folder} lacks the prediction of {some(missing)}; type: {' '.join(run.train_command())} --val"
        )
    return wanted


def _split(run: Run, preprocessed: Path) -> dict[str, list[str]] | None:
    splits = preprocessed / run.dataset / SPLITS
    folds = load_json(str(splits)) if splits.is_file() else []
    return folds[run.fold] if run.fold < len(folds) else None


def _check_same(cases: dict[Run, list[str]]) -> None:
    """Runs of a dataset have the same regions, and those of one fold the same cases."""
    known: dict[str, tuple[Run, tuple[str, ...]]] = {}
    for run in cases:
        regions = tuple(
            r.name for r in LabelScheme.read(run.folder.parent / "dataset.json").regions
        )
        before, others = known.setdefault(run.dataset, (run, regions))
        if regions != others:
            raise InputError(
                f"{run.name} was trained for {', '.join(regions)} and {before.name} for {', '.join(others)}; only runs "
                "for the same labels can be compared"
            )
    first: dict[tuple[str, int], Run] = {}
    for run, names in cases.items():
        other = first.setdefault((run.dataset, run.fold), run)
        if different := sorted(set(names) ^ set(cases[other])):
            raise InputError(
                f"{run.name} and {other.name} validated different cases: {some(different)}; only runs of the same "
                "split can be compared"
            )


def score_run(
    run: Run, cases: Sequence[str], preprocessed: Path, rules: MetricOptions, workers: int
) -> ScoredRun:
    """Score one run's validation."""
    split = _split(run, preprocessed)
    subset = TrainSubset.from_plans(load_json(str(run.folder.parent / "plans.json")))
    scores = scores_of(run, run.folder / "validation", cases, preprocessed, rules, workers)
    return ScoredRun(run, scores, len(subset.select(split["train"])) if split else 0)


def scores_of(
    run: Run,
    predictions: Path,
    cases: Sequence[str],
    preprocessed: Path,
    rules: MetricOptions,
    workers: int,
) -> list[CaseScore]:
    """Scores of a folder of predictions of a run's cases."""
    labelling = LabelScheme.read(run.folder.parent / "dataset.json")
    truths = preprocessed / run.dataset / "gt_segmentations"
    scores = cached_scores(predictions, truths, labelling, cases, rules, workers)
    return scores + mean_of_regions(scores, MEAN) if len(labelling.regions) > 1 else scores
