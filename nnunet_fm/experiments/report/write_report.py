"""Write a report: a page, tables as CSV, Markdown and LaTeX, figures as PNG and SVG."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_fm.evaluation.intervals import FEWEST_FOR_BCA
from nnunet_fm.evaluation.segmentation import CaseScore
from nnunet_fm.experiments.report import figures
from nnunet_fm.experiments.report.cases import ReportCase, draw_case, read_cases, viewer_data
from nnunet_fm.experiments.report.contents import Report, ReportOptions
from nnunet_fm.experiments.report.page import Section, page_chart, render_page
from nnunet_fm.experiments.report.table_formats import to_latex, to_markdown
from nnunet_fm.experiments.report.tables import Table, all_tables, provenance_table
from nnunet_fm.experiments.run_scores import ScoredRun
from nnunet_fm.experiments.summary import METRICS
from nnunet_fm.internal import plotting
from nnunet_fm.internal.atomic_files import write_csv, write_text
from nnunet_fm.internal.errors import UserError
from nnunet_fm.internal.result_sets import replaced_together

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG = logging.getLogger(__name__)
MAIN_METRIC = METRICS[0]
CURVE_METRICS = METRICS[:2]  # Dice and HD95 as curves over the ratios
OTHER_METRICS = "HD95, surface Dice, lesions"
CASES = "Worst and median case"
CONVENTIONS = (
    "Intervals are 95 % limits of the mean over the cases: BCa bootstrap limits of {fewest} cases "
    "or more, Student's t limits of fewer, for which bootstrap limits are too narrow. Both are too "
    "narrow for skewed values such as HD95. A case's value is the mean of its seeds. "
    "* differs from the reference encoder: Wilcoxon signed-rank test over the cases, p < 0.05 "
    "after Holm over all ratios and encoders of a table's column. Bold: best mean of a ratio. "
    "HD95: larger of the two directed 95th percentiles, in mm; both masks empty: Dice 1, "
    "HD95 0; one empty: Dice 0, HD95 the image diagonal. Surface Dice at {tolerance:g} mm. "
    "Lesions: connected components of at least {lesion:g} mm³, not those of the BraTS challenges. "
    "Seeds are those of the subsets and of the trainings; without a training seed, a repeated run "
    "differs. With one seed a test compares two trained networks, not encoders."
)

FOLD_ALL = (
    "Runs of fold all are scored on all cases, including those that they were trained on: these "
    "scores say nothing about unseen cases. "
)


@dataclass(frozen=True)
class Chart:
    """A chart of the report.

    Attributes:
        name: file name without ending.
        section: section of the page that shows it.
        figure: the drawing.
        text: its caption.
    """

    name: str
    section: str
    figure: "Figure"
    text: str


def write_report(
    report: Report, raw: Path | None, preprocessed: Path, out: Path, options: ReportOptions
) -> list[Path]:
    """Write page, tables and figures.

    Args:
        report: contents.
        raw: nnUNet_raw, for the pictures of cases; without it there are none, and the page says so.
        preprocessed: nnUNet_preprocessed.
        out: folder to write to.
        options: options of the report.

    Returns:
        The page, then all other files.
    """
    tables = all_tables(report.summaries, report.comparisons, report.robustness, report.costs)
    cases, missing = _read_cases(report, raw, preprocessed, options)
    charts = list(_charts(report, cases))
    page = render_page(
        title=options.title,
        about=_describe(report),
        unfinished=report.unfinished,
        sections=_sections(report, list(tables.values()), charts, missing, options),
        cases=[viewer_data(case, report.encoder_index) for case in cases],
        left_out=report.left_out,
    )
    with replaced_together(out, "report") as folder:
        files = [folder / "report.html", *_write_tables(report, tables, folder / "tables")]
        write_text(files[0], page)
        for chart in charts:
            files += plotting.save(chart.figure, folder / "figures" / chart.name)
    return [out / file.relative_to(folder) for file in files]


def _read_cases(
    report: Report, raw: Path | None, preprocessed: Path, options: ReportOptions
) -> tuple[list[ReportCase], str]:
    """Read the cases to show; the text says which datasets have none, and why."""
    if raw is None:
        return [], "nnUNet_raw is not set: no pictures of cases."
    cases: list[ReportCase] = []
    missing = []
    for dataset in report.datasets:
        groups = report.groups_of(dataset)
        reference = report.reference(dataset)
        region = report.main_region(dataset)
        try:
            cases += read_cases(groups, reference, region, raw, preprocessed, options.cases)
        except UserError as error:  # not a lack of file handles, memory or disk
            LOG.warning("no pictures of cases of %s: %s", dataset, error)
            missing.append(f"No pictures of cases of {dataset}: {error}.")
    return cases, " ".join(missing)


def _charts(report: Report, cases: Sequence[ReportCase]) -> Iterator[Chart]:
    for dataset in report.datasets:
        yield from _dataset_charts(report, dataset)
        yield from _robustness_charts(report, dataset)
    for case in cases:
        reference = report.reference(case.dataset)
        yield Chart(
            name=f"{case.dataset}_case_{case.role.replace(', ', '_')}_{case.name}",
            section=CASES,
            figure=draw_case(case, report.encoder_index),
            text=f"{case.dataset}, {case.name}: {case.role} by the Dice of {reference}",
        )


def _dataset_charts(report: Report, dataset: str) -> Iterator[Chart]:
    """Yield curves over the ratios, and the distribution over the cases."""
    summaries = [s for s in report.summaries if s.dataset == dataset]
    for metric in CURVE_METRICS:
        yield Chart(
            name=f"{dataset}_{metric.key}_ratios",
            section="Ratios",
            figure=figures.ratio_curves(summaries, metric, report.encoder_index),
            text=f"{dataset}: {metric.name} over the ratios, mean over the cases with 95 % limits",
        )
    region = report.main_region(dataset)
    yield Chart(
        name=f"{dataset}_dice_cases",
        section="Cases",
        figure=figures.case_distributions(
            report.groups_of(dataset), region, MAIN_METRIC, report.encoder_index
        ),
        text=f"{dataset}: Dice ({region}) of every case, mean of its seeds; boxes are quartiles",
    )


def _robustness_charts(report: Report, dataset: str) -> Iterator[Chart]:
    """Yield values under perturbations, and changes from the clean images, for each ratio."""
    scores = [score for score in report.robustness if score.dataset == dataset]
    region = report.main_region(dataset)
    for ratio in sorted({score.ratio for score in scores}):
        of_ratio = [score for score in scores if score.ratio == ratio]
        images = f"under perturbations of images at ratio {ratio:g}, with 95 % limits"
        yield Chart(
            name=f"{dataset}_robustness_{ratio:g}",
            section="Robustness",
            figure=figures.robustness_bars(of_ratio, region, MAIN_METRIC, report.encoder_index),
            text=f"{dataset}: {MAIN_METRIC.name} {images}",
        )
        yield Chart(
            name=f"{dataset}_robustness_change_{ratio:g}",
            section="Robustness",
            figure=figures.robustness_curves(of_ratio, region, MAIN_METRIC, report.encoder_index),
            text=f"{dataset}: change {images}",
        )


def _write_tables(report: Report, tables: dict[str, Table], folder: Path) -> list[Path]:
    """Write Markdown and LaTeX of what the page shows, and CSV of everything measured."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {}
    for name, table in tables.items():
        texts[folder / f"{name}.md"] = to_markdown(table) + "\n"
        texts[folder / f"{name}.tex"] = to_latex(table) + "\n"
    for path, text in texts.items():
        write_text(path, text)
    rows: dict[str, Sequence[Any]] = {
        "summary": report.summaries,
        "tests": report.comparisons,
        "robustness": report.robustness,
        "cost": report.costs,
        "provenance": report.provenance,
        "cases": [_case_row(run, score) for run in report.scored for score in run.scores],
    }
    files = list(texts)
    for name, content in rows.items():
        if content:
            files.append(folder / f"{name}.csv")
            write_csv(content, files[-1])
    return files


def _case_row(scored: ScoredRun, score: CaseScore) -> dict[str, Any]:
    run = scored.run
    return {
        "dataset": run.dataset,
        "encoder": run.encoder,
        "ratio": run.ratio,
        "seed": run.seed,
        "training_seed": run.training_seed,
        "fold": run.fold,
        "train_cases": scored.train_cases,
        **asdict(score),
    }


def _describe(report: Report) -> str:
    encoders = ", ".join(report.encoder_index)
    text = f"{len(report.scored)} finished runs of {encoders} on {', '.join(report.datasets)}."
    schemes = [f"{name} of {dataset}" for dataset, name in report.schemes.items()]
    return f"{text} Label scheme: {', '.join(schemes)}." if schemes else text


def _sections(
    report: Report,
    tables: Sequence[Table],
    charts: Sequence[Chart],
    missing: str,
    options: ReportOptions,
) -> list[Section]:
    """Lay out the page; charts and tables name their section themselves."""
    conventions = CONVENTIONS.format(
        fewest=FEWEST_FOR_BCA,
        tolerance=options.metrics.tolerance_mm,
        lesion=options.metrics.lesion_mm3,
    )
    note = FOLD_ALL + conventions if report.has_fold_all else conventions
    provenance = Section(
        "Provenance",
        collapsed=[provenance_table(report.provenance)],
        collapsed_title="how every run was made",
    )

    def section(title: str, collapsed_title: str = "", note: str = "") -> Section:
        own = [table for table in tables if table.section == title]
        return Section(
            title=title,
            charts=[page_chart(c.figure, c.text) for c in charts if c.section == title],
            tables=[table for table in own if not table.collapsed],
            collapsed=[table for table in own if table.collapsed],
            collapsed_title=collapsed_title,
            note=note,
        )

    return [
        section("Summary", OTHER_METRICS, note),
        section("Ratios"),
        section("Cases"),
        section("Tests", f"tests of {OTHER_METRICS}"),
        section("Robustness", OTHER_METRICS),
        section("Cost"),
        section(CASES, note=missing),
        provenance,
    ]
