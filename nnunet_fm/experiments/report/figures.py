"""The report's charts: ratio curves, cases, robustness."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunet_fm.experiments.robustness import Robustness
from nnunet_fm.experiments.summary import Group, Metric, Summary
from nnunet_fm.internal.plotting import MARKS, colour, draw_band, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (3.8, 3.3)  # inches
Lines = dict[str, int]  # number of each encoder's line, the same in all charts


def ratio_curves(summaries: Sequence[Summary], metric: Metric, lines: Lines) -> "Figure":
    """A metric over the ratios, a panel for each region, with the 95 % limits of the mean as bands.

    Args:
        summaries: of one dataset.
        metric: which.
        lines: numbers of the encoders.
    """
    chosen = [s for s in summaries if s.metric == metric.key]
    regions = list(dict.fromkeys(s.region for s in chosen))
    figure, panels = new_figure(len(regions), size=PANEL)
    ratios = sorted({s.ratio for s in chosen})
    for axes, region in zip(panels, regions, strict=True):
        for encoder, line in lines.items():
            points = sorted(
                (s for s in chosen if (s.region, s.encoder) == (region, encoder)),
                key=lambda s: s.ratio,
            )
            if points:
                middle, low, high = (
                    [getattr(p, k) for p in points] for k in ("mean", "low", "high")
                )
                draw_band(axes, [p.ratio for p in points], middle, low, high, encoder, line)
        axes.set(title=region, xlabel="share of the training cases")
        axes.set_xticks(ratios, [f"{r:g}" for r in ratios])
    panels[0].set_ylabel(metric.name)
    _legend(figure, panels[0])
    return figure


def _legend(figure: "Figure", axes: "Axes") -> None:
    """Below the panels, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=max(1, len(labels)),
        frameon=False,
        fontsize=8,
    )


def case_distributions(
    found: Sequence[Group], region: str, metric: Metric, lines: Lines
) -> "Figure":
    """Every case as a point and the quartiles as a box, for each encoder, a panel for each ratio.

    Args:
        found: groups of one dataset.
        region: which.
        metric: which.
        lines: numbers of the encoders.
    """
    ratios = sorted({g.ratio for g in found})
    figure, panels = new_figure(len(ratios), size=(max(2.2, 0.7 * len(lines) + 0.8), PANEL[1]))
    for axes, ratio in zip(panels, ratios, strict=True):
        for encoder, line in lines.items():
            for g in (g for g in found if (g.ratio, g.encoder) == (ratio, encoder)):
                _draw_cases(axes, np.array(list(g.by_case(region, metric.key).values())), line)
        axes.set_title(f"ratio {ratio:g}")
        axes.set_xticks(list(lines.values()), list(lines), rotation=35, ha="right", fontsize=8)
    panels[0].set_ylabel(f"{metric.name}, {region}")
    return figure


def _draw_cases(axes: "Axes", values: np.ndarray, line: int) -> None:
    style = {"color": colour(line), "linewidth": 1.4}
    axes.boxplot(
        values,
        positions=[line],
        widths=0.6,
        showfliers=False,
        boxprops=style,
        whiskerprops=style,
        capprops=style,
        medianprops=style,
    )
    places = line + np.linspace(
        -0.16, 0.16, len(values)
    )  # beside each other, always at the same place
    axes.plot(
        places, values, MARKS[line % len(MARKS)], color=colour(line), markersize=3.5, alpha=0.7
    )


def robustness_bars(
    found: Sequence[Robustness], region: str, metric: Metric, lines: Lines
) -> "Figure":
    """A metric at each severity, bars for the encoders, with 95 % limits; a panel for each family.

    Args:
        found: of one dataset and ratio.
        region: which.
        metric: which.
        lines: numbers of the encoders.
    """
    chosen = [r for r in found if (r.region, r.metric) == (region, metric.key)]
    families, encoders = (
        sorted({r.family for r in chosen}),
        [e for e in lines if e in {r.encoder for r in chosen}],
    )
    figure, panels = new_figure(len(families), size=PANEL)
    width = 0.8 / len(encoders)
    for axes, family in zip(panels, families, strict=True):
        severities = sorted({r.severity for r in chosen if r.family == family})
        for n, encoder in enumerate(encoders):
            bars = {r.severity: r for r in chosen if (r.family, r.encoder) == (family, encoder)}
            places = [severities.index(s) + (n - (len(encoders) - 1) / 2) * width for s in bars]
            values = np.array([r.value for r in bars.values()])
            limits = np.array([[r.low for r in bars.values()], [r.high for r in bars.values()]])
            errors = np.clip(np.nan_to_num([values - limits[0], limits[1] - values]), 0, None)
            axes.bar(
                places,
                values,
                width * 0.92,
                yerr=errors,
                color=colour(lines[encoder]),
                label=encoder,
                capsize=2,
            )
        axes.set(title=family, xlabel="severity")
        axes.set_xticks(range(len(severities)), [f"{s:g}" for s in severities])
    panels[0].set_ylabel(f"{metric.name}, {region}")
    _legend(figure, panels[0])
    return figure


def robustness_curves(
    found: Sequence[Robustness], region: str, metric: Metric, lines: Lines
) -> "Figure":
    """The change from the clean images over the severities, with 95 % limits as bands; arguments as the bars'."""
    chosen = [r for r in found if (r.region, r.metric) == (region, metric.key)]
    families = sorted({r.family for r in chosen})
    figure, panels = new_figure(len(families), size=PANEL)
    for axes, family in zip(panels, families, strict=True):
        for encoder, line in lines.items():
            points = [r for r in chosen if (r.family, r.encoder) == (family, encoder)]
            if points:
                middle, low, high = (
                    [getattr(p, k) for p in points] for k in ("change", "change_low", "change_high")
                )
                draw_band(axes, [p.severity for p in points], middle, low, high, encoder, line)
        axes.axhline(0, color="#888888", linewidth=0.8)
        axes.set(title=family, xlabel="severity")
    panels[0].set_ylabel(f"change of {metric.name}, {region}")
    _legend(figure, panels[0])
    return figure
