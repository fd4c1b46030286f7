"""From runs to a folder: page, tables as CSV, Markdown and LaTeX, figures as PNG and SVG."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_fm.evaluation.segmentation import CaseScore
from nnunet_fm.experiments.report import figures, page
from nnunet_fm.experiments.report.cases import Case, draw_case, read_cases, viewer_data
from nnunet_fm.experiments.report.contents import Report, Request
from nnunet_fm.experiments.report.tables import (
    Grid,
    all_grids,
    as_html,
    latex,
    markdown,
    provenance_grid,
)
from nnunet_fm.experiments.run_scores import ScoredRun
from nnunet_fm.experiments.summary import METRICS, Metric
from nnunet_fm.internal import plotting as drawing
from nnunet_fm.internal.files import write_csv, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG = logging.getLogger(__name__)
DRAWN = METRICS[:2]  # Dice and HD95 as curves over the ratios
CONVENTIONS = """Intervals are 95 % BCa bootstrap limits over the cases; a case's value is the mean of its seeds.
* differs from the reference encoder: Wilcoxon signed-rank test over the cases, p < 0.05 after Holm over all ratios and
encoders of a table's column. Bold: best mean of a ratio. HD95: larger of the two directed 95th percentiles, in mm; both
masks empty: Dice 1, HD95 0; one empty: Dice 0, HD95 the image diagonal. Surface Dice at {tolerance:g} mm. Lesions:
connected components of at least {lesion:g} mm³, not those of the BraTS challenges. nnU-Net does not seed the training:
seeds are those of the subsets, and a repeated run differs; with one seed a test compares two trained networks, not
encoders."""


@dataclass(frozen=True)
class Chart:
    """A figure, its words, and the section of the page that it is in."""

    section: str
    figure: "Figure"
    words: str


def write_report(
    report: Report, raw: Path | None, preprocessed: Path, out: Path, request: Request
) -> list[Path]:
    """Write page, tables and figures.

    Args:
        report: what to show.
        raw: nnUNet_raw, for the pictures of cases; without it there are none, and the page says so.
        preprocessed: nnUNet_preprocessed.
        out: folder.
        request: what was asked.

    Returns:
        The page, then everything else.
    """
    out.mkdir(parents=True, exist_ok=True)
    grids = all_grids(report.summaries, report.tests, report.robustness, report.costs)
    cases, missing = _cases(report, raw, preprocessed, request)
    charts = dict(_charts(report, cases))
    written = [
        *_write_tables(report, grids, out / "tables"),
        *_write_figures(charts, out / "figures"),
    ]
    data = [viewer_data(case, report.lines) for case in cases]
    target = out / "report.html"
    write_text(target, _page(report, grids, charts, data, missing, request))
    return [target, *written]


def _cases(
    report: Report, raw: Path | None, preprocessed: Path, request: Request
) -> tuple[list[Case], str]:
    """Cases to look at, and why there are none of a dataset."""
    if raw is None:
        return [], "nnUNet_raw is not set: no pictures of cases."
    found, missing = [], []
    for dataset in report.datasets:
        of, reference, region = (
            report.of(dataset),
            report.reference(dataset),
            report.main_region(dataset),
        )
        try:
            found += read_cases(of, reference, region, raw, preprocessed, request.cases)
        except (FileNotFoundError, ValueError) as error:
            LOG.warning("no pictures of cases of %s: %s", dataset, error)
            missing.append(f"No pictures of cases of {dataset}: {error}.")
    return found, " ".join(missing)


def _charts(report: Report, cases: Sequence[Case]) -> Iterator[tuple[str, Chart]]:
    """Every chart with its file name."""
    lines = report.lines
    for dataset in report.datasets:
        of, region = report.of(dataset), report.main_region(dataset)
        summaries = [s for s in report.summaries if s.dataset == dataset]
        for m in DRAWN:
            words = f"{dataset}: {m.name} over the ratios, mean over the cases with 95 % limits"
            yield (
                f"{dataset}_{m.key}_ratios",
                Chart("Ratios", figures.ratio_curves(summaries, m, lines), words),
            )
        words = f"{dataset}: Dice ({region}) of every case, mean of its seeds; boxes are quartiles"
        distributions = figures.case_distributions(of, region, METRICS[0], lines)
        yield f"{dataset}_dice_cases", Chart("Cases", distributions, words)
        yield from _robustness_charts(report, dataset, region, METRICS[0])
    for case in cases:
        words = f"{case.dataset}, {case.name}: {case.role} by the Dice of {report.reference(case.dataset)}"
        name = f"{case.dataset}_case_{case.role.replace(', ', '_')}_{case.name}"
        yield name, Chart("Worst and median case", draw_case(case, lines), words)


def _robustness_charts(
    report: Report, dataset: str, region: str, metric: Metric
) -> Iterator[tuple[str, Chart]]:
    found = [r for r in report.robustness if r.dataset == dataset]
    for ratio in sorted({r.ratio for r in found}):
        at, end = (
            [r for r in found if r.ratio == ratio],
            f"of images at ratio {ratio:g}, with 95 % limits",
        )
        bars = figures.robustness_bars(at, region, metric, report.lines)
        curves = figures.robustness_curves(at, region, metric, report.lines)
        words, change = (
            f"{metric.name} under perturbations {end}",
            f"change under perturbations {end}",
        )
        yield f"{dataset}_robustness_{ratio:g}", Chart("Robustness", bars, f"{dataset}: {words}")
        yield (
            f"{dataset}_robustness_change_{ratio:g}",
            Chart("Robustness", curves, f"{dataset}: {change}"),
        )


def _write_tables(report: Report, grids: dict[str, Grid], folder: Path) -> list[Path]:
    """Markdown and LaTeX of what is shown, CSV of everything that was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, render in (("md", markdown), ("tex", latex)):
        for name, grid in grids.items():
            written.append(folder / f"{name}.{ending}")
            write_text(written[-1], render(grid) + "\n")
    rows: dict[str, Sequence[Any]] = {
        "summary": report.summaries,
        "tests": report.tests,
        "robustness": report.robustness,
        "cost": report.costs,
        "provenance": report.provenance,
        "cases": [_case_row(run, score) for run in report.scored for score in run.scores],
    }
    for name, content in rows.items():
        if content:
            written.append(folder / f"{name}.csv")
            write_csv(content, written[-1])
    return written


def _case_row(run: ScoredRun, score: CaseScore) -> dict[str, Any]:
    of_run = {key: getattr(run.run, key) for key in ("dataset", "encoder", "ratio", "seed", "fold")}
    return {**of_run, "train_cases": run.train_cases, **asdict(score)}


def _write_figures(charts: dict[str, Chart], folder: Path) -> list[Path]:
    return [
        path for name, chart in charts.items() for path in drawing.save(chart.figure, folder / name)
    ]


def _page(
    report: Report,
    grids: dict[str, Grid],
    charts: dict[str, Chart],
    data: list[dict[str, Any]],
    missing: str,
    request: Request,
) -> str:
    about = f"{len(report.scored)} finished runs of {', '.join(report.lines)} on {', '.join(report.datasets)}."
    rules = request.rules

    def drawn(section: str) -> list[str]:
        return [page.drawing(c.figure, c.words) for c in charts.values() if c.section == section]

    def tables(section: str, others: str = "") -> list[str]:
        """The open ones, and the others on demand."""
        of = [g for g in grids.values() if g.section == section]
        folded = [as_html(g) for g in of if g.folded]
        return [as_html(g) for g in of if not g.folded] + (
            [page.folded(others, folded)] if folded else []
        )

    small = page.note(CONVENTIONS.format(tolerance=rules.tolerance_mm, lesion=rules.lesion_mm3))
    cases = "Worst and median case"
    sections = {
        "Summary": [*tables("Summary", "HD95, surface Dice, lesions"), small],
        "Ratios": drawn("Ratios"),
        "Cases": drawn("Cases"),
        "Tests": tables("Tests", "tests of HD95, surface Dice, lesions"),
        "Robustness": [*drawn("Robustness"), *tables("Robustness", "HD95, surface Dice, lesions")],
        "Cost": tables("Cost"),
        cases: drawn(cases) + ([page.note(missing)] if missing else []),
        "Provenance": [
            page.folded("how every run was made", [as_html(provenance_grid(report.provenance))])
        ],
    }
    return page.page(request.title, about, report.unfinished, sections, data)
