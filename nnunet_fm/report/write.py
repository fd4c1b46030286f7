"""From runs to a folder: page, tables as CSV, Markdown and LaTeX, figures as PNG and SVG."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_fm import drawing
from nnunet_fm.evaluation.segmentations import CaseScore
from nnunet_fm.files import write_csv, write_text
from nnunet_fm.report import figures, page
from nnunet_fm.report.cases import Case, draw_case, read_cases, viewer_data
from nnunet_fm.report.content import Report, Request
from nnunet_fm.report.scored import ScoredRun
from nnunet_fm.report.summary import METRICS, Metric
from nnunet_fm.report.tables import Grid, all_grids, latex, markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG = logging.getLogger(__name__)
Drawn = dict[str, tuple["Figure", str]]  # chart and words, by file name
DRAWN = METRICS[:2]  # Dice and HD95 as curves over the ratios
CONVENTIONS = """Intervals are 95 % BCa bootstrap limits over the cases; a case's value is the mean of its seeds.
* differs from the reference encoder: Wilcoxon signed-rank test over the cases, p < 0.05 after Holm over all ratios and
encoders of a table's column. Bold: best mean of a ratio. HD95: larger of the two directed 95th percentiles, in mm; both
masks empty: Dice 1, HD95 0; one empty: Dice 0, HD95 the image diagonal. Surface Dice at {tolerance:g} mm. Lesions:
connected components of at least {lesion:g} mm³, not those of the BraTS challenges. nnU-Net does not seed the training:
seeds are those of the subsets, and a repeated run differs; with one seed a test compares two trained networks, not
encoders."""


def write_report(report: Report, raw: Path | None, preprocessed: Path, out: Path, request: Request) -> list[Path]:
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
    drawn = dict(_figures(report, cases))
    written = [*_write_tables(report, grids, out / "tables"), *_write_figures(drawn, out / "figures")]
    data = [viewer_data(case, report.lines) for case in cases]
    target = out / "report.html"
    write_text(target, _page(report, grids, drawn, data, missing, request))
    return [target, *written]


def _cases(report: Report, raw: Path | None, preprocessed: Path, request: Request) -> tuple[list[Case], str]:
    """Cases to look at, and why there are none of a dataset."""
    if raw is None:
        return [], "nnUNet_raw is not set: no pictures of cases."
    found, missing = [], []
    for dataset in report.datasets:
        of, reference, region = report.of(dataset), report.reference(dataset), report.main_region(dataset)
        try:
            found += read_cases(of, reference, region, raw, preprocessed, request.cases)
        except (FileNotFoundError, ValueError) as error:
            LOG.warning("no pictures of cases of %s: %s", dataset, error)
            missing.append(f"No pictures of cases of {dataset}: {error}.")
    return found, " ".join(missing)


def _figures(report: Report, cases: Sequence[Case]) -> Iterator[tuple[str, tuple["Figure", str]]]:
    """Name, chart and words of every figure."""
    lines = report.shown
    for dataset in report.datasets:
        of, region = report.of(dataset), report.main_region(dataset)
        summaries = [s for s in report.summaries if s.dataset == dataset]
        for m in DRAWN:
            words = f"{dataset}: {m.name} over the ratios, mean over the cases with 95 % limits"
            yield f"{dataset}_{m.key}_ratios", (figures.ratio_curves(summaries, m, lines), words)
        words = f"{dataset}: Dice ({region}) of every case, mean of its seeds; boxes are quartiles"
        yield f"{dataset}_dice_cases", (figures.case_distributions(of, region, METRICS[0], lines), words)
        yield from _robustness_figures(report, dataset, region, METRICS[0])
    for case in cases:
        words = f"{case.dataset}, {case.name}: {case.role} by the Dice of {report.reference(case.dataset)}"
        yield f"{case.dataset}_case_{case.role.replace(', ', '_')}_{case.name}", (draw_case(case, lines), words)


def _robustness_figures(
    report: Report, dataset: str, region: str, metric: Metric
) -> Iterator[tuple[str, tuple["Figure", str]]]:
    found = [r for r in report.robustness if r.dataset == dataset]
    for ratio in sorted({r.ratio for r in found}):
        at, end = [r for r in found if r.ratio == ratio], f"of images at ratio {ratio:g}, with 95 % limits"
        bars = figures.robustness_bars(at, region, metric, report.shown)
        curves = figures.robustness_curves(at, region, metric, report.shown)
        yield f"{dataset}_robustness_{ratio:g}", (bars, f"{dataset}: {metric.name} under perturbations {end}")
        yield f"{dataset}_robustness_change_{ratio:g}", (curves, f"{dataset}: change under perturbations {end}")


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


def _write_figures(drawn: Drawn, folder: Path) -> list[Path]:
    return [path for name, (figure, _) in drawn.items() for path in drawing.save(figure, folder / name)]


def _page(
    report: Report, grids: dict[str, Grid], drawn: Drawn, data: list[dict[str, Any]], missing: str, request: Request
) -> str:
    runs, encoders = len(report.scored), ", ".join(report.shown)
    about = f"{runs} finished runs of {encoders} on {', '.join(report.datasets)}."
    rules = request.rules

    def charts(*words: str) -> list[str]:
        return [page.drawing(*d) for name, d in drawn.items() if any(w in name for w in words)]

    def tables(end: str, shown: str = "") -> list[str]:
        """Dice open, the others on demand."""
        chosen = {n: page.table(g) for n, g in grids.items() for d in report.datasets if _is(n, d, end)}
        dice = {f"{d}_{METRICS[0].key}{end}" for d in report.datasets}
        first, others = ([t for n, t in chosen.items() if (n in dice) is wanted] for wanted in (True, False))
        return first + ([page.folded(shown, others)] if others else [])

    small = page.note(CONVENTIONS.format(tolerance=rules.tolerance_mm, lesion=rules.lesion_mm3))
    sections = {
        "Summary": [*tables("", "HD95, surface Dice, lesions"), small],
        "Ratios": charts("_ratios"),
        "Cases": charts("_dice_cases"),
        "Tests": tables("_tests", "tests of HD95, surface Dice, lesions"),
        "Robustness": [*charts("_robustness_"), *tables("_robustness", "HD95, surface Dice, lesions")],
        "Cost": [page.table(grids["cost"])],
        "Worst and median case": charts("_case_") + ([page.note(missing)] if missing else []),
        "Provenance": [page.folded("how every run was made", [page.provenance_table(report.provenance)])],
    }
    return page.page(request.title, about, report.unfinished, sections, data)


def _is(name: str, dataset: str, end: str) -> bool:
    return name in {f"{dataset}_{m.key}{end}" for m in METRICS}
