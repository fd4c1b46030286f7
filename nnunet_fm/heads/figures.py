"""Figures: metrics over the ratios, survival of the risk groups, robustness. PNG and SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_fm.evaluation.survival import Curve
from nnunet_fm.heads.models import has_scores
from nnunet_fm.heads.risk_groups import RiskGroups, risk_groups
from nnunet_fm.heads.saved_runs import FinishedRun, Predictions
from nnunet_fm.internal.plotting import COLOURS, draw_band, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnunet_fm.heads.results import Result
    from nnunet_fm.heads.robustness import Robustness


def draw_ratio_curves(
    runs: Sequence[FinishedRun], metric: str, models: Sequence[str], stem: Path
) -> list[Path]:
    """One metric over the ratios: mean of the seeds, with the mean limits over the tested cases as a band.

    Args:
        runs: of one task, an encoder each.
        metric: as in the results.
        models: e.g. `mlp`; a line for each encoder and model.
        stem: file name without its ending.
    """
    figure, (axes,) = new_figure()
    lines = [(run, model) for run in runs for model in models]
    for n, (run, model) in enumerate(lines):
        points = [(r.ratio, r) for r in run.results if (r.metric, r.model) == (metric, model)]
        _draw_band(axes, points, f"{run.about['encoder']}, {model}", n)
    about = runs[0].about
    axes.set(
        xlabel="share of the training subjects",
        ylabel=metric,
        title=f"{about['task']} ({about['tested']})",
    )
    axes.legend(frameon=False, fontsize=8)
    return save(figure, stem)


def draw_robustness(found: "Sequence[Robustness]", stem: Path) -> list[Path]:
    """The first metric over each family's severities, a line per model that has scores."""
    metric, families = found[0].metric, sorted({r.family for r in found})
    figure, panels = new_figure(len(families), size=(3.6, 3.4))
    models = list(filter(has_scores, dict.fromkeys(r.model for r in found)))
    for axes, family in zip(panels, families, strict=True):
        for n, model in enumerate(models):
            points = [
                (r.severity, r)
                for r in found
                if (r.family, r.model, r.metric) == (family, model, metric)
            ]
            _draw_band(axes, points, model, n)
        axes.set_xlabel(family)
    panels[0].set_ylabel(metric)
    panels[0].legend(frameon=False, fontsize=8)
    return save(figure, stem)


def _draw_band(
    axes: "Axes", points: "Sequence[tuple[float, Result | Robustness]]", label: str, line: int
) -> None:
    """Mean over the seeds at each place, with the mean limits around it."""
    places = sorted({x for x, _ in points})
    at = [[r for x, r in points if x == place] for place in places]
    mean, low, high = (
        [float(np.mean([getattr(r, k) for r in g])) for g in at] for k in ("value", "low", "high")
    )
    draw_band(axes, places, mean, low, high, label, line)


def draw_survival(predictions: Predictions, title: str, stem: Path) -> list[Path]:
    """Kaplan-Meier curves of the groups above and up to the training cases' median risk, with the log-rank test."""
    truth = predictions.truth
    groups = risk_groups(truth.values, truth.events, predictions.high)
    figure, (axes,) = new_figure()
    for n, (name, curve, mask) in enumerate(
        (("high", groups.high, predictions.high), ("low", groups.low, ~predictions.high))
    ):
        if curve is not None:
            _draw_curve(
                axes,
                curve,
                f"{name} risk, n = {groups.counts[n]}{_median(groups, name)}",
                COLOURS[1 - n],
            )
            _draw_at_risk(axes, truth.values[mask], float(truth.values.max()), name, n)
    axes.set(
        ylim=(0, 1.02),
        xlim=(0, None),
        ylabel="share surviving",
        title=f"{title}, log-rank p = {groups.p:.3g}",
    )
    axes.set_xlabel("time (days)", labelpad=34)
    axes.legend(frameon=False, fontsize=8)
    return save(figure, stem)


def _median(groups: RiskGroups, name: str) -> str:
    value, low, high = groups.medians[name]
    return f", median {value:.0f} ({low:.0f} to {high:.0f})".replace("nan", "not reached")


def _draw_curve(axes: "Axes", curve: Curve, label: str, colour: str) -> None:
    def from_one(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[1.0], np.where(np.isfinite(values), values, curve.survival)])

    times = np.concatenate([[0.0], curve.times])
    axes.step(times, from_one(curve.survival), where="post", color=colour, label=label)
    axes.fill_between(
        times,
        from_one(curve.low),
        from_one(curve.high),
        step="post",
        color=colour,
        alpha=0.12,
        linewidth=0,
    )


def _draw_at_risk(axes: "Axes", times: np.ndarray, last: float, name: str, line: int) -> None:
    """How many are still watched at some times, below the axis."""
    across = axes.get_xaxis_transform()
    for moment in np.linspace(0, last, 5):
        text = (
            f"{name} {int((times >= moment).sum())}"
            if moment == 0
            else str(int((times >= moment).sum()))
        )
        axes.text(
            moment,
            -0.16 - 0.06 * line,
            text,
            transform=across,
            ha="center",
            fontsize=7,
            color=COLOURS[1 - line],
        )
