"""Every finished run with its scores, case by case."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from nnunet_fm.data.image_size import UnreadableImageError
from nnunet_fm.evaluation.labels import LabelScheme
from nnunet_fm.evaluation.score_cache import cached_scores
from nnunet_fm.evaluation.score_tables import mean_of_regions
from nnunet_fm.evaluation.segmentation import CaseScore, MetricOptions
from nnunet_fm.experiments.run_checks import check_same_training, check_validation, train_subset
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.files import case_names
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.file_names import (
    DATASET_JSON,
    GROUND_TRUTH,
    SPLITS_JSON,
    VALIDATION,
)
from nnunet_fm.nnunet.splits import ALL, Fold, fold_split
from nnunet_fm.nnunet.training_data import check_copied_labels

MEAN = "mean"  # of the regions, where there are several
Problems = dict[tuple[str, str], str]  # dataset and case: why a file of it cannot be read


@dataclass(frozen=True)
class ScoredRun:
    """A finished run and the scores of its validation.

    Attributes:
        run: the run.
        scores: scores of its validation cases, region by region; where there are several regions,
            their mean is another region.
        train_cases: number of cases it was trained on; 0 if unknown.
    """

    run: Run
    scores: list[CaseScore]
    train_cases: int

    @property
    def cases(self) -> list[str]:
        """Names of the validation cases, without repetition."""
        return list(dict.fromkeys(score.case for score in self.scores))


def score_runs(
    runs: Sequence[Run],
    preprocessed: Path,
    options: MetricOptions | None = None,
    workers: int = 2,
    problems: Problems | None = None,
) -> list[ScoredRun]:
    """Score the validation of every finished run; earlier scores are read from the score cache.

    Args:
        runs: any runs; unfinished ones are skipped.
        preprocessed: nnUNet_preprocessed, which holds the ground truth.
        options: metric options.
        workers: number of processes.
        problems: receives the cases whose files cannot be read; they are left out of all runs of
            their dataset. If None, the first one is an error.

    Raises:
        FileNotFoundError: a prediction is missing.
        ValueError: runs of one dataset and fold validated different cases, or runs of one name
            were not trained alike, see `check_same_training`.
    """
    options = options or MetricOptions()
    finished = [run for run in runs if run.state() is State.FINISHED]
    check_same_training(finished)
    cases = {run: validation_cases(run, preprocessed) for run in finished}
    _check_same_regions(finished)
    _check_same_cases(cases)
    scored = [
        _score_run(run, cases[run], preprocessed, options, workers, problems)
        for run in tqdm(finished, desc="runs")
    ]
    return without_cases(scored, problems or {})


def without_cases(scored: Sequence[ScoredRun], problems: Problems) -> list[ScoredRun]:
    """Leave cases out of all runs of their dataset, so that every mean is of the same cases.

    Raises:
        ValueError: nothing is left of a run.
    """
    kept = []
    for one in scored:
        scores = [s for s in one.scores if (one.run.dataset, s.case) not in problems]
        if not scores:
            raise UnreadableImageError(f"{one.run.name}: {next(iter(problems.values()))}")
        kept.append(replace(one, scores=scores))
    return kept


def validation_cases(run: Run, preprocessed: Path) -> list[str]:
    """List the cases that a run's fold validates, after checking its predictions.

    Raises:
        FileNotFoundError: a prediction is missing.
        ValueError: the run was trained on another split, see also `check_validation`.
    """
    folder = run.folder / VALIDATION
    ending = label_scheme(run).ending
    predicted = set(case_names(folder, ending))
    split = _split(run, preprocessed)
    expected = sorted(split["val"]) if split else sorted(predicted)
    extra = sorted(predicted - set(expected))
    if extra:
        raise InputError(
            f"{folder} holds the prediction of {some(extra)}, which fold {run.fold} of "
            f"{preprocessed / run.dataset / SPLITS_JSON} does not validate: {run.name} was trained "
            "on another split. Restore that file, or remove this run from the command"
        )
    missing = [case for case in expected if case not in predicted]
    if missing:
        raise MissingFileError(
            f"{folder} lacks the prediction of {some(missing)}; type: "
            f"{' '.join(run.train_command())} --val"
        )
    check_copied_labels(preprocessed / run.dataset, expected, ending)
    check_validation(run, expected, split)
    return expected


def label_scheme(run: Run) -> LabelScheme:
    """Read what the labels of a run's predictions mean."""
    return LabelScheme.read(run.folder.parent / DATASET_JSON)


def _split(run: Run, preprocessed: Path) -> dict[str, list[str]] | None:
    """Return the training and validation cases of a run's fold; None if there is no such file."""
    dataset = preprocessed / run.dataset
    if run.fold != ALL and not (dataset / SPLITS_JSON).is_file():
        return None
    return fold_split(dataset, run.fold)


def _check_same_regions(runs: Sequence[Run]) -> None:
    """Check that all runs of a dataset were trained for the same regions."""
    first: dict[str, Run] = {}
    for run in runs:
        other = first.setdefault(run.dataset, run)
        regions = [region.name for region in label_scheme(run).regions]
        others = [region.name for region in label_scheme(other).regions]
        if regions != others:
            raise InputError(
                f"{run.name} was trained for {', '.join(regions)} and {other.name} for "
                f"{', '.join(others)}; only runs for the same labels can be compared"
            )


def _check_same_cases(cases: dict[Run, list[str]]) -> None:
    """Check that all runs of a dataset and fold validated the same cases."""
    first: dict[tuple[str, Fold], Run] = {}
    for run, names in cases.items():
        other = first.setdefault((run.dataset, run.fold), run)
        different = sorted(set(names) ^ set(cases[other]))
        if different:
            raise InputError(
                f"{run.name} and {other.name} validated different cases: {some(different)}; only "
                "runs of the same split can be compared"
            )


def _score_run(
    run: Run,
    cases: Sequence[str],
    preprocessed: Path,
    options: MetricOptions,
    workers: int,
    problems: Problems | None,
) -> ScoredRun:
    folder = run.folder / VALIDATION
    scores = score_folder(run, folder, cases, preprocessed, options, workers, problems)
    split = _split(run, preprocessed)
    train_cases = 0
    if split:
        train_cases = len(train_subset(run).select(split["train"]))
    return ScoredRun(run, scores, train_cases)


def score_folder(
    run: Run,
    predictions: Path,
    cases: Sequence[str],
    preprocessed: Path,
    options: MetricOptions,
    workers: int,
    problems: Problems | None = None,
) -> list[CaseScore]:
    """Score a folder of predictions of a run's cases, and the mean of the regions.

    Args:
        run: the run that made the predictions.
        predictions: folder of predictions.
        cases: names of the cases to score.
        preprocessed: nnUNet_preprocessed, which holds the ground truth.
        options: metric options.
        workers: number of processes.
        problems: receives the cases whose files cannot be read; if None, the first is an error.
    """
    scheme = label_scheme(run)
    truths = preprocessed / run.dataset / GROUND_TRUTH
    unreadable: dict[str, str] | None = None if problems is None else {}
    scores = cached_scores(predictions, truths, scheme, cases, options, workers, unreadable)
    if problems is not None and unreadable:
        problems |= {(run.dataset, case): reason for case, reason in unreadable.items()}
    return scores + mean_of_regions(scores, MEAN) if len(scheme.regions) > 1 else scores
