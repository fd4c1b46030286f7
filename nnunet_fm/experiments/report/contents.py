"""Everything that a report shows, as data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_fm.evaluation.segmentation import MetricOptions
from nnunet_fm.experiments.robustness import Robustness, robustness
from nnunet_fm.experiments.run_cost import Cost, Provenance, cost_of, provenance_of
from nnunet_fm.experiments.run_scores import MEAN, ScoredRun, score_runs
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.experiments.status import RunStatus
from nnunet_fm.experiments.summary import Comparison, Group, Summary, compare, groups, summarise
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some


@dataclass(frozen=True)
class Request:
    """What a report is asked to show.

    Attributes:
        title: of the page.
        reference: encoder that others are tested against; the first if None.
        rules: what the metrics leave open.
        cases: names of cases for the viewer, beside the worst and the median.
        workers: processes.
    """

    title: str = "nnunet-fm"
    reference: str | None = None
    rules: MetricOptions = field(default_factory=MetricOptions)
    cases: tuple[str, ...] = ()
    workers: int = 2


@dataclass(frozen=True)
class Report:
    """Everything that a report shows, as data; `encoders` in their order, finished or not."""

    encoders: list[str]
    scored: list[ScoredRun]
    groups: list[Group]
    summaries: list[Summary]
    tests: list[Comparison]
    robustness: list[Robustness]
    costs: list[Cost]
    provenance: list[Provenance]
    unfinished: list[RunStatus]

    @property
    def lines(self) -> dict[str, int]:
        """Number of each encoder that has a finished run, the same in all charts and when others are finished."""
        finished = {s.run.encoder for s in self.scored}
        return {encoder: n for n, encoder in enumerate(self.encoders) if encoder in finished}

    @property
    def datasets(self) -> list[str]:
        """Names."""
        return list(dict.fromkeys(g.dataset for g in self.groups))

    def reference(self, dataset: str) -> str:
        """Encoder that the others of a dataset are tested against."""
        tested = [t.reference for t in self.tests if t.dataset == dataset]
        return (
            tested[0]
            if tested
            else next(e for e in self.lines if any(g.encoder == e for g in self.of(dataset)))
        )

    def of(self, dataset: str) -> list[Group]:
        """A dataset's groups."""
        return [g for g in self.groups if g.dataset == dataset]

    def main_region(self, dataset: str) -> str:
        """The mean of the regions, or the only one."""
        regions = self.of(dataset)[0].regions
        return MEAN if MEAN in regions else regions[0]


def make_report(
    runs: Sequence[Run], lines: Sequence[RunStatus], preprocessed: Path, request: Request
) -> Report:
    """Score, summarise and test.

    Args:
        runs: finished or not.
        lines: the state of each run.
        preprocessed: nnUNet_preprocessed.
        request: what is asked.

    Raises:
        ValueError: no run is finished; an unknown reference or case; runs that cannot be compared.
        FileNotFoundError: a prediction is missing.
    """
    finished = [run for run in runs if run.state() is State.FINISHED]
    if not finished:
        raise InputError(f"none of the {len(runs)} runs is finished; see nnunet-fm sweep status")
    scored = score_runs(runs, preprocessed, request.rules, request.workers)
    found, encoders = groups(scored), list(dict.fromkeys(run.encoder for run in runs))
    known = {case for s in scored for case in s.cases}
    if strange := sorted(set(request.cases) - known):
        raise InputError(
            f"no run validated the case {some(strange)}; allowed after --case: {some(sorted(known))}"
        )
    return Report(
        encoders=encoders,
        scored=scored,
        groups=found,
        summaries=summarise(found),
        tests=compare(found, encoders, request.reference),
        robustness=robustness(scored, preprocessed, request.rules, request.workers),
        costs=[cost_of(run) for run in finished],
        provenance=[provenance_of(run) for run in runs],
        unfinished=[line for line in lines if line.state is not State.FINISHED],
    )
