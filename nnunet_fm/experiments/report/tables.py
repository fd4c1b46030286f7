"""The tables of a report, laid out once for Markdown, LaTeX and HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from nnunet_fm.experiments.robustness import PerturbedScore
from nnunet_fm.experiments.run_cost import Cost, Provenance
from nnunet_fm.experiments.runs import ratio_text
from nnunet_fm.experiments.summary import (
    METRICS,
    Metric,
    PairedComparison,
    Summary,
    train_cases_by_ratio,
)
from nnunet_fm.internal.messages import counted
from nnunet_fm.nnunet.splits import SEEN

LEVEL = 0.05  # of significance
UNKNOWN = "not known"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it says.
        best: whether it is the best of its group, shown in bold.
        marked: whether it differs from the reference, shown with a star.
    """

    text: str
    best: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: text above the table; may be empty.
        head: names of the columns.
        rows: cells of each row.
        section: section of the page that shows it.
        collapsed: whether the page shows it on demand only.
        long_text: whether its cells may be wrapped.
    """

    caption: str
    head: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    section: str = ""
    collapsed: bool = False
    long_text: bool = False


def _plain_row(*values: object) -> tuple[Cell, ...]:
    """Return a row of cells without bold or stars."""
    return tuple(Cell(str(value)) for value in values)


def summary_table(
    dataset: str,
    metric: Metric,
    summaries: Sequence[Summary],
    comparisons: Sequence[PairedComparison],
) -> Table:
    """Encoders by ratio, a column per region: mean ± standard deviation over the cases.

    Args:
        dataset: full name of the dataset.
        metric: the metric.
        summaries: summaries of all datasets and metrics.
        comparisons: comparisons with the reference; a cell is marked where Wilcoxon's p after Holm
            is below 0.05.
    """
    summaries = [s for s in summaries if (s.dataset, s.metric) == (dataset, metric.key)]
    comparisons = _select(comparisons, dataset, metric)
    regions = list(dict.fromkeys(s.region for s in summaries))
    marked = {(c.ratio, c.other, c.region) for c in comparisons if c.wilcoxon_holm < LEVEL}
    rows = []
    for ratio, encoder in dict.fromkeys((s.ratio, s.encoder) for s in summaries):
        own = {s.region: s for s in summaries if (s.ratio, s.encoder) == (ratio, encoder)}
        first = next(iter(own.values()))
        row = [Cell(f"{ratio:g}"), Cell(str(first.train_cases or "")), Cell(encoder)]
        for region in regions:
            rivals = [
                s
                for s in summaries
                if (s.ratio, s.region) == (ratio, region) and SEEN not in s.encoder
            ]
            text = _mean_and_deviation(own[region], metric.digits)
            best = own[region] in rivals and _is_best(own[region], rivals, metric)
            row.append(Cell(text, best, (ratio, encoder, region) in marked))
        rows.append((*row, Cell(str(first.cases)), Cell(str(first.seeds))))
    head = ("ratio", "training cases", "encoder", *regions, "cases", "seeds")
    stars = _explain_stars(comparisons, len(regions))
    caption = f"{dataset}: {metric.name}, mean ± standard deviation over the cases{stars}"
    return Table(caption, head, rows)


def _select(
    comparisons: Sequence[PairedComparison], dataset: str, metric: Metric
) -> list[PairedComparison]:
    return [c for c in comparisons if (c.dataset, c.metric) == (dataset, metric.key)]


def _explain_stars(comparisons: Sequence[PairedComparison], regions: int) -> str:
    """Explain what a star means, or that there can be none.

    Wilcoxon's p of n cases is at least 2 / 2^n, and Holm multiplies the smallest p by the number
    of tests.
    """
    if not comparisons:
        return ""
    tests = len(comparisons) // regions
    smallest = 2 / 2 ** max(c.cases for c in comparisons) * tests
    if smallest > LEVEL:
        return (
            f"; {counted(tests, 'test')} of so few cases cannot be significant "
            f"(Holm's p is {smallest:.2g} at the least)"
        )
    return f"; * differs from {comparisons[0].reference}"


def _is_best(summary: Summary, rivals: Sequence[Summary], metric: Metric) -> bool:
    """Check for the best mean; while folds are unfinished, cases differ and there is no best."""
    if len(rivals) < 2 or len({rival.cases for rival in rivals}) > 1:
        return False
    means = [rival.mean for rival in rivals]
    return summary.mean == (max(means) if metric.higher_is_better else min(means))


def comparison_table(
    dataset: str,
    metric: Metric,
    comparisons: Sequence[PairedComparison],
    train_cases: Mapping[float, int],
) -> Table:
    """Tabulate the tests behind the stars of a dataset and metric.

    Args:
        dataset: full name of the dataset.
        metric: the metric.
        comparisons: comparisons of all datasets and metrics.
        train_cases: number of training cases of each ratio; 0 if unknown.
    """
    comparisons = _select(comparisons, dataset, metric)
    reference = comparisons[0].reference if comparisons else ""
    rows = [
        _plain_row(
            ratio_text(c.ratio, train_cases.get(c.ratio, 0)),
            c.region,
            c.other,
            f"{c.difference:+.{metric.digits}f}",
            _limits(c.low, c.high, metric.digits),
            _p(c.wilcoxon_p),
            _p(c.wilcoxon_holm),
            _p(c.permutation_p),
            _p(c.permutation_holm),
            _number(c.rank_biserial, 2),
            _number(c.cohen_dz, 2),
            c.cases,
            c.seeds,
        )
        for c in comparisons
    ]
    head = (
        *("ratio (cases)", "region", "encoder", "difference", "95 %"),
        *("Wilcoxon p", "Holm", "permutation p", "Holm"),
        *("rank-biserial r", "Cohen d_z", "cases", "seeds"),
    )
    caption = f"{dataset}: {metric.name}, difference from {reference}, paired over the cases"
    return Table(caption, head, rows)


def robustness_table(
    dataset: str,
    metric: Metric,
    scores: Sequence[PerturbedScore],
    train_cases: Mapping[float, int],
) -> Table:
    """Values under perturbations and changes from the clean images; see `comparison_table`."""
    rows = [
        _plain_row(
            s.encoder,
            ratio_text(s.ratio, train_cases.get(s.ratio, 0)),
            s.region,
            s.family,
            f"{s.severity:g}",
            f"{s.value:.{metric.digits}f}",
            _limits(s.low, s.high, metric.digits),
            f"{s.change:+.{metric.digits}f}",
            _limits(s.change_low, s.change_high, metric.digits),
            s.cases,
            s.seeds,
        )
        for s in scores
        if (s.dataset, s.metric) == (dataset, metric.key)
    ]
    head = (
        *("encoder", "ratio (cases)", "region", "family", "severity"),
        *(metric.name, "95 %", "change", "95 %", "cases", "seeds"),
    )
    return Table(f"{dataset}: {metric.name} on perturbed images", head, rows)


def cost_table(costs: Sequence[Cost]) -> Table:
    """Mean cost of the finished runs of each encoder."""
    encoders = dict.fromkeys(cost.encoder for cost in costs)
    rows = [_cost_row([c for c in costs if c.encoder == encoder]) for encoder in encoders]
    head = (
        *("encoder", "parameters", "learned", "epochs"),
        *("training (min)", "peak memory (GiB)", "checkpoint (MB)", "runs"),
    )
    return Table("What a run takes", head, rows, section="Cost")


def _cost_row(costs: Sequence[Cost]) -> tuple[Cell, ...]:
    """Summarise the runs of one encoder."""
    first = costs[0]
    peak = max(cost.peak_bytes for cost in costs)
    return _plain_row(
        first.encoder,
        f"{first.parameters:,}" if first.parameters else UNKNOWN,
        f"{first.learned:,}" if first.learned else UNKNOWN,
        f"{np.mean([cost.epochs for cost in costs]):g}",
        f"{np.mean([cost.seconds for cost in costs]) / 60:.1f}",
        f"{peak / 2**30:.2f} ({first.peak_of})" if peak else UNKNOWN,
        f"{np.mean([cost.checkpoint_bytes for cost in costs]) / 1e6:.1f}",
        len(costs),
    )


def provenance_table(runs: Sequence[Provenance]) -> Table:
    """Tabulate how every run was made."""
    names = tuple(field.name for field in fields(Provenance))
    rows = [_plain_row(*(getattr(run, name) for name in names)) for run in runs]
    return Table("", names, rows, long_text=True)


def all_tables(
    summaries: Sequence[Summary],
    comparisons: Sequence[PairedComparison],
    scores: Sequence[PerturbedScore],
    costs: Sequence[Cost],
) -> dict[str, Table]:
    """Return every table that has rows, by file name; the page collapses all but Dice."""
    tables = {}
    for dataset in dict.fromkeys(s.dataset for s in summaries):
        train_cases = train_cases_by_ratio(s for s in summaries if s.dataset == dataset)
        for metric in METRICS:
            stem = f"{dataset}_{metric.key}"
            sections = {
                stem: ("Summary", summary_table(dataset, metric, summaries, comparisons)),
                f"{stem}_tests": (
                    "Tests",
                    comparison_table(dataset, metric, comparisons, train_cases),
                ),
                f"{stem}_robustness": (
                    "Robustness",
                    robustness_table(dataset, metric, scores, train_cases),
                ),
            }
            collapsed = metric is not METRICS[0]
            for name, (section, table) in sections.items():
                tables[name] = replace(table, section=section, collapsed=collapsed)
    tables["cost"] = cost_table(costs)
    return {name: table for name, table in tables.items() if table.rows}


def _mean_and_deviation(summary: Summary, digits: int) -> str:
    text = f"{summary.mean:.{digits}f}"
    return f"{text} ± {summary.sd:.{digits}f}" if np.isfinite(summary.sd) else text


def _limits(low: float, high: float, digits: int) -> str:
    return f"{_number(low, digits)} to {_number(high, digits)}"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def _p(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
