"""Tables of a report, laid out once and written as Markdown, LaTeX and HTML."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from nnunet_fm.experiments.robustness import Robustness
from nnunet_fm.experiments.run_cost import Cost, Provenance
from nnunet_fm.experiments.summary import METRICS, Comparison, Metric, Summary
from nnunet_fm.internal.markdown import markdown_table

LEVEL = 0.05


@dataclass(frozen=True)
class Cell:
    """A cell's words; the best of its group is bold, one that differs from the reference is marked."""

    text: str
    best: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        caption, head, rows: what it says.
        section: of the page.
        folded: opened on demand.
        wraps: has long words.
    """

    caption: str
    head: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    section: str = ""
    folded: bool = False
    wraps: bool = False


def _line(*words: object) -> tuple[Cell, ...]:
    """A row of plain cells."""
    return tuple(Cell(str(word)) for word in words)


def summary_grid(
    dataset: str, metric: Metric, summaries: Sequence[Summary], tests: Sequence[Comparison]
) -> Grid:
    """Encoders by ratio, a column for each region: mean ± standard deviation over the cases.

    Args:
        dataset: whose.
        metric: which.
        summaries: of all datasets and metrics.
        tests: against the reference; a cell with Wilcoxon's p after Holm below 0.05 is marked.
    """
    chosen = [s for s in summaries if (s.dataset, s.metric) == (dataset, metric.key)]
    regions = list(dict.fromkeys(s.region for s in chosen))
    marked = {
        (t.ratio, t.other, t.region)
        for t in tests
        if (t.dataset, t.metric) == (dataset, metric.key) and t.wilcoxon_holm < LEVEL
    }
    rows = []
    for ratio, encoder in dict.fromkeys((s.ratio, s.encoder) for s in chosen):
        of_row = {s.region: s for s in chosen if (s.ratio, s.encoder) == (ratio, encoder)}
        one = next(iter(of_row.values()))
        cells = [Cell(f"{ratio:g}"), Cell(str(one.train_cases or "")), Cell(encoder)]
        for region in regions:
            rivals = [s for s in chosen if (s.ratio, s.region) == (ratio, region)]
            text = _spread(of_row[region].mean, of_row[region].sd, metric.digits)
            best = _is_best(of_row[region], rivals, metric)
            cells.append(Cell(text, best, (ratio, encoder, region) in marked))
        rows.append((*cells, Cell(str(one.cases)), Cell(str(one.seeds))))
    head = ("ratio", "training cases", "encoder", *regions, "cases", "seeds")
    against = _against(
        [t for t in tests if (t.dataset, t.metric) == (dataset, metric.key)], len(regions)
    )
    return Grid(
        f"{dataset}: {metric.name}, mean ± standard deviation over the cases{against}", head, rows
    )


def _against(tests: Sequence[Comparison], regions: int) -> str:
    """What a mark means, or that there can be none: Wilcoxon's p of n cases is at least 2 / 2^n, times the tests."""
    if not tests:
        return ""
    family = len(tests) // regions
    smallest = 2 / 2 ** max(t.cases for t in tests) * family
    if smallest > LEVEL:
        return f"; {family} tests of so few cases cannot be significant (Holm's p is {smallest:.2g} at the least)"
    return f"; * differs from {tests[0].reference}"


def _is_best(one: Summary, rivals: Sequence[Summary], metric: Metric) -> bool:
    """Of several that were tested on as many cases; while folds are unfinished there is no best."""
    if len(rivals) < 2 or len({r.cases for r in rivals}) > 1:
        return False
    means = [r.mean for r in rivals]
    return one.mean == (max(means) if metric.higher_is_better else min(means))


def comparison_grid(dataset: str, metric: Metric, tests: Sequence[Comparison]) -> Grid:
    """The tests behind the marks."""
    chosen = [t for t in tests if (t.dataset, t.metric) == (dataset, metric.key)]
    reference = chosen[0].reference if chosen else ""
    rows = []
    for t in chosen:
        limits = f"{_number(t.low, metric.digits)} to {_number(t.high, metric.digits)}"
        p = [_p(v) for v in (t.wilcoxon_p, t.wilcoxon_holm, t.permutation_p, t.permutation_holm)]
        effects = [_number(t.rank_biserial, 2), _number(t.cohen_dz, 2)]
        words = (
            f"{t.ratio:g}",
            t.region,
            t.other,
            f"{t.difference:+.{metric.digits}f}",
            limits,
            *p,
            *effects,
        )
        rows.append(_line(*words, t.cases, t.seeds))
    head = (
        "ratio",
        "region",
        "encoder",
        "difference",
        "95 %",
        "Wilcoxon p",
        "Holm",
        "permutation p",
        "Holm",
    )
    more = ("rank-biserial r", "Cohen d_z", "cases", "seeds")
    return Grid(
        f"{dataset}: {metric.name}, difference from {reference}, paired over the cases",
        head + more,
        rows,
    )


def robustness_grid(dataset: str, metric: Metric, found: Sequence[Robustness]) -> Grid:
    """Values and changes under perturbations."""
    rows = []
    for r in (r for r in found if (r.dataset, r.metric) == (dataset, metric.key)):
        d = metric.digits
        limits = f"{_number(r.low, d)} to {_number(r.high, d)}"
        change = f"{_number(r.change_low, d)} to {_number(r.change_high, d)}"
        words = (
            r.encoder,
            f"{r.ratio:g}",
            r.region,
            r.family,
            f"{r.severity:g}",
            f"{r.value:.{d}f}",
            limits,
        )
        rows.append(_line(*words, f"{r.change:+.{d}f}", change, r.cases, r.seeds))
    head = (
        "encoder",
        "ratio",
        "region",
        "family",
        "severity",
        metric.name,
        "95 %",
        "change",
        "95 %",
        "cases",
        "seeds",
    )
    return Grid(f"{dataset}: {metric.name} on perturbed images", head, rows)


def cost_grid(costs: Sequence[Cost]) -> Grid:
    """Mean cost of the finished runs of each encoder."""
    rows = []
    for encoder in dict.fromkeys(c.encoder for c in costs):
        of = [c for c in costs if c.encoder == encoder]
        peak = max(c.peak_bytes for c in of)
        rows.append(
            _line(
                encoder,
                f"{of[0].parameters:,}" if of[0].parameters else "not known",
                f"{of[0].learned:,}" if of[0].learned else "not known",
                f"{np.mean([c.epochs for c in of]):g}",
                f"{np.mean([c.seconds for c in of]) / 60:.1f}",
                f"{peak / 2**30:.2f} ({of[0].peak_of})" if peak else "not known",
                f"{np.mean([c.checkpoint_bytes for c in of]) / 1e6:.1f}",
                len(of),
            )
        )
    head = (
        "encoder",
        "parameters",
        "learned",
        "epochs",
        "training (min)",
        "peak memory (GiB)",
        "checkpoint (MB)",
    )
    return Grid("What a run takes", (*head, "runs"), rows, "Cost")


def provenance_grid(rows: Sequence[Provenance]) -> Grid:
    """How every run was made."""
    names = tuple(f.name for f in fields(Provenance))
    lines = [_line(*(getattr(row, name) for name in names)) for row in rows]
    return Grid("", names, lines, wraps=True)


def all_grids(
    summaries: Sequence[Summary],
    tests: Sequence[Comparison],
    found: Sequence[Robustness],
    costs: Sequence[Cost],
) -> dict[str, Grid]:
    """Every table that has rows, by a file name; on the page those of the first metric are open."""
    grids = {}
    for dataset in dict.fromkeys(s.dataset for s in summaries):
        for m in METRICS:
            of_metric = {
                "": (summary_grid(dataset, m, summaries, tests), "Summary"),
                "_tests": (comparison_grid(dataset, m, tests), "Tests"),
                "_robustness": (robustness_grid(dataset, m, found), "Robustness"),
            }
            for end, (grid, section) in of_metric.items():
                grids[f"{dataset}_{m.key}{end}"] = replace(
                    grid, section=section, folded=m is not METRICS[0]
                )
    return {name: g for name, g in {**grids, "cost": cost_grid(costs)}.items() if g.rows}


def _spread(mean: float, deviation: float, digits: int) -> str:
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if np.isfinite(deviation) else "")


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def _p(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def markdown(grid: Grid) -> str:
    """With `**best**` and `*` marks."""
    rows = [[_words(cell, lambda t: f"**{t}**", r" \*") for cell in row] for row in grid.rows]
    return f"{grid.caption}\n\n{markdown_table(grid.head, rows)}"


def latex(grid: Grid) -> str:
    """With booktabs' rules."""
    lines = [" & ".join(_escaped(h) for h in grid.head) + r" \\", r"\midrule"]
    for row in grid.rows:
        cells = [Cell(_escaped(c.text), c.best, c.marked) for c in row]
        lines.append(
            " & ".join(_words(c, lambda t: rf"\textbf{{{t}}}", r"$^{*}$") for c in cells) + r" \\"
        )
    body = "\n".join(lines)
    columns = "l" * len(grid.head)
    return (
        f"\\begin{{table}}\n\\caption{{{_escaped(grid.caption)}}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )


def as_html(grid: Grid) -> str:
    """With heads that screen readers follow."""
    head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in grid.head)
    start = '<td class="free">' if grid.wraps else "<td>"
    body = ""
    for row in grid.rows:
        cells = (Cell(html.escape(c.text), c.best, c.marked) for c in row)
        body += (
            "<tr>"
            + "".join(f"{start}{_words(c, lambda t: f'<b>{t}</b>', MARK)}</td>" for c in cells)
            + "</tr>"
        )
    caption = f"<caption>{html.escape(grid.caption)}</caption>" if grid.caption else ""
    return f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


MARK = '<sup title="differs from the reference">*</sup>'
SPECIAL = {
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "±": r"$\pm$",
}


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(c, c) for c in text)


def _words(cell: Cell, bold: Callable[[str], str], mark: str) -> str:
    return (bold(cell.text) if cell.best else cell.text) + (mark if cell.marked else "")
