"""Everything that a report shows, as data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_fm.evaluation.segmentation import MetricOptions
from nnunet_fm.experiments.encoder_runs import EncoderRuns, group_runs
from nnunet_fm.experiments.robustness import PerturbedScore, score_perturbations
from nnunet_fm.experiments.run_cost import Cost, Provenance, cost_of, provenance_of
from nnunet_fm.experiments.run_scores import (
    MEAN,
    Problems,
    ScoredRun,
    label_scheme,
    score_runs,
    without_cases,
)
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.experiments.status import RunStatus
from nnunet_fm.experiments.summary import (
    PairedComparison,
    Summary,
    compare_encoders,
    summarise,
)
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.splits import ALL


@dataclass(frozen=True)
class ReportOptions:
    """Options of a report.

    Attributes:
        title: title of the page.
        reference: encoder that the others are compared with; the first if None.
        metrics: metric options.
        cases: names of cases to show in addition to the worst and the median.
        workers: number of processes.
    """

    title: str = "nnunet-fm"
    reference: str | None = None
    metrics: MetricOptions = field(default_factory=MetricOptions)
    cases: tuple[str, ...] = ()
    workers: int = 2


@dataclass(frozen=True)
class Report:
    """The contents of a report.

    Attributes:
        encoders: names of all encoders in their order, finished or not.
        scored: finished runs and their scores.
        groups: the same, by dataset, ratio and encoder.
        summaries: means and intervals.
        comparisons: tests of each encoder against the reference.
        robustness: scores on perturbed images.
        costs: cost of each finished run.
        provenance: how each run was made, finished or not.
        unfinished: state of the runs that are not in the report.
        problems: cases that are left out of all runs of their dataset, and why.
    """

    encoders: list[str]
    scored: list[ScoredRun]
    groups: list[EncoderRuns]
    summaries: list[Summary]
    comparisons: list[PairedComparison]
    robustness: list[PerturbedScore]
    costs: list[Cost]
    provenance: list[Provenance]
    unfinished: list[RunStatus]
    problems: Problems = field(default_factory=dict)

    @property
    def left_out(self) -> list[str]:
        """A line for each case that is left out."""
        return [
            f"{case} of {dataset} is left out of all its runs: {reason}"
            for (dataset, case), reason in self.problems.items()
        ]

    @property
    def encoder_index(self) -> dict[str, int]:
        """Number of each encoder with a finished run: its colour and mark in all charts.

        The number does not change when other encoders are finished.
        """
        finished = {scored.run.encoder for scored in self.scored}
        return {encoder: n for n, encoder in enumerate(self.encoders) if encoder in finished}

    @property
    def datasets(self) -> list[str]:
        """Full names of the datasets."""
        return list(dict.fromkeys(group.dataset for group in self.groups))

    @property
    def schemes(self) -> dict[str, str]:
        """Names of the BraTS label schemes, by dataset; a dataset that names none is left out."""
        names = {one.run.dataset: label_scheme(one.run).brats for one in self.scored}
        return {dataset: name for dataset, name in names.items() if name}

    def groups_of(self, dataset: str) -> list[EncoderRuns]:
        """Return the groups of one dataset."""
        return [group for group in self.groups if group.dataset == dataset]

    def reference(self, dataset: str) -> str:
        """Return the encoder that the others are compared with on a dataset."""
        for comparison in self.comparisons:
            if comparison.dataset == dataset:
                return comparison.reference
        present = {group.encoder for group in self.groups_of(dataset)}
        return next(encoder for encoder in self.encoder_index if encoder in present)

    @property
    def has_fold_all(self) -> bool:
        """Whether a run validated on the cases that it was trained on."""
        return any(scored.run.fold == ALL for scored in self.scored)

    def main_region(self, dataset: str) -> str:
        """Return the mean of the regions, or the only region."""
        regions = self.groups_of(dataset)[0].regions
        return MEAN if MEAN in regions else regions[0]


def make_report(
    runs: Sequence[Run],
    statuses: Sequence[RunStatus],
    preprocessed: Path,
    options: ReportOptions,
) -> Report:
    """Score, summarise and compare runs.

    Args:
        runs: runs, finished or not.
        statuses: the state of each run.
        preprocessed: nnUNet_preprocessed.
        options: options of the report.

    Raises:
        ValueError: no run is finished; an unknown reference or case; runs that cannot be compared.
        FileNotFoundError: a prediction is missing.
    """
    finished = [run for run in runs if run.state() is State.FINISHED]
    if not finished:
        raise InputError(f"none of the {len(runs)} runs is finished; see nnunet-fm sweep status")
    problems: Problems = {}
    scored = score_runs(runs, preprocessed, options.metrics, options.workers, problems)
    robustness = score_perturbations(
        scored, preprocessed, options.metrics, options.workers, problems
    )
    scored = without_cases(scored, problems)  # also where only a perturbed prediction is damaged
    known = {case for one in scored for case in one.cases}
    unknown = sorted(set(options.cases) - known)
    if unknown:
        raise InputError(
            f"no run validated the case {some(unknown)}; allowed after --case: "
            f"{some(sorted(known))}"
        )
    groups = group_runs(scored)
    encoders = list(dict.fromkeys(run.encoder for run in runs))
    return Report(
        encoders=encoders,
        scored=scored,
        groups=groups,
        summaries=summarise(groups),
        comparisons=compare_encoders(groups, encoders, options.reference),
        robustness=robustness,
        costs=[cost_of(run) for run in finished],
        provenance=[provenance_of(run) for run in runs],
        unfinished=[status for status in statuses if status.state is not State.FINISHED],
        problems=problems,
    )
