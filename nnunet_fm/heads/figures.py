"""Figures: metrics over the ratios, survival of the risk groups, robustness. PNG and SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_fm.evaluation.survival import Curve
from nnunet_fm.heads.models import has_scores
from nnunet_fm.heads.risk_groups import RiskGroup, risk_groups
from nnunet_fm.heads.saved_runs import FinishedRun, Predictions
from nnunet_fm.internal.path_parts import path_part
from nnunet_fm.internal.plotting import COLOURS, draw_band, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnunet_fm.heads.results import PerturbedResult, Result

DRAWN_MODELS = ("mlp", "linear")
COLOUR_OF = {"high": COLOURS[1], "low": COLOURS[0]}


def draw_runs(runs: Sequence[FinishedRun], folder: Path) -> None:
    """Draw all figures of some runs of one task.

    Curves of the first metric over the ratios, if there are several ratios, and for survival the
    curves of the risk groups at each ratio, of the first seed.

    Args:
        runs: runs of one task, one per encoder.
        folder: folder of the figures.
    """
    models = [model for model in DRAWN_MODELS if all(_has_model(run, model) for run in runs)]
    metric = runs[0].results[0].metric
    if models and len({result.ratio for result in runs[0].results}) > 1:
        draw_ratio_curves(runs, metric, models, folder / f"ratios_{metric.replace('-', '_')}")
    if runs[0].about["kind"] != "survival":
        return
    for run in runs:
        encoder = run.about["encoder"]
        for ratio in sorted({result.ratio for result in run.results}):
            predictions = run.predictions(ratio, 0)
            for model in models:
                draw_survival(
                    predictions[model],
                    f"{encoder}, {model}, ratio {ratio:g}",
                    run.about["settings"]["target"],
                    folder / path_part(f"survival_{encoder}_{model}_ratio_{ratio:g}"),
                )


def _has_model(run: FinishedRun, model: str) -> bool:
    return any(result.model == model for result in run.results)


def draw_ratio_curves(
    runs: Sequence[FinishedRun], metric: str, models: Sequence[str], stem: Path
) -> list[Path]:
    """Draw one metric over the ratios: mean of the seeds, and the mean limits as a band.

    Args:
        runs: runs of one task, one per encoder.
        metric: name of the metric in the results.
        models: models to draw, e.g. `mlp`; there is a line for each encoder and model.
        stem: file name without its ending.

    Returns:
        The files written.
    """
    figure, (axes,) = new_figure()
    line = 0
    for run in runs:
        for model in models:
            points = [
                (result.ratio, result)
                for result in run.results
                if (result.metric, result.model) == (metric, model)
            ]
            _draw_band(axes, points, f"{run.about['encoder']}, {model}", line)
            line += 1
    about = runs[0].about
    axes.set(
        xlabel="share of the training subjects",
        ylabel=metric,
        title=f"{about['task']} ({about['tested']})",
    )
    axes.legend(frameon=False, fontsize=8)
    return save(figure, stem)


def draw_robustness(results: "Sequence[PerturbedResult]", stem: Path) -> list[Path]:
    """Draw the first metric over the severities, one panel per family, one line per model.

    Models without scores are not drawn.
    """
    metric = results[0].metric
    families = sorted({result.family for result in results})
    figure, panels = new_figure(len(families), size=(3.6, 3.4))
    models = filter(has_scores, dict.fromkeys(result.model for result in results))
    for line, model in enumerate(models):
        for axes, family in zip(panels, families, strict=True):
            points = [
                (result.severity, result)
                for result in results
                if (result.family, result.model, result.metric) == (family, model, metric)
            ]
            _draw_band(axes, points, model, line)
    for axes, family in zip(panels, families, strict=True):
        axes.set_xlabel(family)
    panels[0].set_ylabel(metric)
    panels[0].legend(frameon=False, fontsize=8)
    return save(figure, stem)


def _draw_band(
    axes: "Axes", points: "Sequence[tuple[float, Result | PerturbedResult]]", label: str, line: int
) -> None:
    """Draw the mean over the seeds at each place, and the mean limits around it."""
    places = sorted({x for x, _ in points})
    middle = []
    low = []
    high = []
    for place in places:
        results = [result for x, result in points if x == place]
        middle.append(float(np.mean([result.value for result in results])))
        low.append(float(np.mean([result.low for result in results])))
        high.append(float(np.mean([result.high for result in results])))
    draw_band(axes, places, middle, low, high, label, line)


def draw_survival(predictions: Predictions, title: str, column: str, stem: Path) -> list[Path]:
    """Draw Kaplan-Meier curves of both risk groups, with the p of the log-rank test.

    The groups are split at the training cases' median risk.

    Args:
        predictions: predictions of a survival task.
        title: title of the figure.
        column: name of the column of times, which tells their unit.
        stem: file name without its ending.

    Returns:
        The files written.
    """
    groups = risk_groups(predictions.truth, predictions.high)
    figure, (axes,) = new_figure()
    last = float(predictions.truth.values.max())
    for line, group in enumerate((groups.high, groups.low)):
        if group.curve is not None:
            label = f"{group.name} risk, n = {group.count}{_median_text(group)}"
            _draw_curve(axes, group.curve, label, COLOUR_OF[group.name])
            _draw_at_risk(axes, group.times, last, group.name, line)
    axes.set(
        ylim=(0, 1.02),
        xlim=(0, None),
        ylabel="share surviving",
        title=f"{title}, log-rank p = {groups.p:.3g}",
    )
    axes.set_xlabel(f"time ({column})", labelpad=34)
    axes.legend(frameon=False, fontsize=8)
    return save(figure, stem)


def _median_text(group: RiskGroup) -> str:
    median, low, high = group.median
    return f", median {median:g} ({low:g} to {high:g})".replace("nan", "not reached")


def _draw_curve(axes: "Axes", curve: Curve, label: str, colour: str) -> None:
    times = np.concatenate([[0.0], curve.times])
    survival = _from_one(curve.survival, curve)
    axes.step(times, survival, where="post", color=colour, label=label)
    axes.fill_between(
        times,
        _from_one(curve.low, curve),
        _from_one(curve.high, curve),
        step="post",
        color=colour,
        alpha=0.12,
        linewidth=0,
    )


def _from_one(values: np.ndarray, curve: Curve) -> np.ndarray:
    """Start a curve at 1, and replace limits that are NaN with the curve itself."""
    return np.concatenate([[1.0], np.where(np.isfinite(values), values, curve.survival)])


def _draw_at_risk(axes: "Axes", times: np.ndarray, last: float, name: str, line: int) -> None:
    """Write the numbers of subjects at risk at five times below the axis."""
    for moment in np.linspace(0, last, 5):
        at_risk = int((times >= moment).sum())
        axes.text(
            moment,
            -0.16 - 0.06 * line,
            f"{name} {at_risk}" if moment == 0 else str(at_risk),
            transform=axes.get_xaxis_transform(),
            ha="center",
            fontsize=7,
            color=COLOUR_OF[name],
        )
