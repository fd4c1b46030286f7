"""The charts of a report: curves over the ratios, distributions over the cases, robustness."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunet_fm.experiments.encoder_runs import EncoderRuns
from nnunet_fm.experiments.robustness import PerturbedScore
from nnunet_fm.experiments.runs import ratio_text
from nnunet_fm.experiments.summary import Metric, Summary, train_cases_by_ratio
from nnunet_fm.internal.plotting import MARKS, colour, draw_band, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (3.8, 3.3)  # inches
EncoderIndex = dict[str, int]  # number of each encoder: its colour and mark in all charts


def ratio_curves(
    summaries: Sequence[Summary], metric: Metric, encoder_index: EncoderIndex
) -> "Figure":
    """Draw a metric over the ratios, a panel per region, the 95 % limits of the mean as bands.

    Args:
        summaries: summaries of one dataset.
        metric: the metric.
        encoder_index: number of each encoder.
    """
    summaries = [s for s in summaries if s.metric == metric.key]
    regions = list(dict.fromkeys(s.region for s in summaries))
    cases = train_cases_by_ratio(summaries)
    ratios = sorted(cases)
    figure, panels = new_figure(len(regions), size=PANEL)
    for axes, region in zip(panels, regions, strict=True):
        for encoder, number in encoder_index.items():
            points = [s for s in summaries if (s.region, s.encoder) == (region, encoder)]
            points.sort(key=lambda s: s.ratio)
            if points:
                draw_band(
                    axes,
                    [p.ratio for p in points],
                    [p.mean for p in points],
                    [p.low for p in points],
                    [p.high for p in points],
                    encoder,
                    number,
                )
        axes.set(title=region, xlabel="share of the training cases (number)")
        axes.set_xticks(ratios, [ratio_text(ratio, cases[ratio]) for ratio in ratios])
    panels[0].set_ylabel(metric.name)
    _add_legend(figure, panels[0])
    return figure


def _add_legend(figure: "Figure", axes: "Axes") -> None:
    """Add a legend below the panels, where it hides nothing."""
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
    groups: Sequence[EncoderRuns], region: str, metric: Metric, encoder_index: EncoderIndex
) -> "Figure":
    """Draw every case as a point and quartiles as a box, by encoder, a panel per ratio.

    Args:
        groups: groups of one dataset.
        region: the region.
        metric: the metric.
        encoder_index: number of each encoder.
    """
    cases = train_cases_by_ratio(groups)
    ratios = sorted(cases)
    width = max(2.2, 0.7 * len(encoder_index) + 0.8)
    figure, panels = new_figure(len(ratios), size=(width, PANEL[1]))
    for axes, ratio in zip(panels, ratios, strict=True):
        for group in groups:
            if group.ratio == ratio and group.encoder in encoder_index:
                values = np.array(list(group.by_case(region, metric.key).values()))
                _draw_cases(axes, values, encoder_index[group.encoder])
        axes.set_title(f"ratio {ratio_text(ratio, cases[ratio])}")
        axes.set_xticks(
            list(encoder_index.values()), list(encoder_index), rotation=35, ha="right", fontsize=8
        )
    panels[0].set_ylabel(f"{metric.name}, {region}")
    return figure


def _draw_cases(axes: "Axes", values: np.ndarray, number: int) -> None:
    style = {"color": colour(number), "linewidth": 1.4}
    axes.boxplot(
        values,
        positions=[number],
        widths=0.6,
        showfliers=False,
        boxprops=style,
        whiskerprops=style,
        capprops=style,
        medianprops=style,
    )
    places = number + np.linspace(-0.16, 0.16, len(values))  # side by side, in the order of names
    mark = MARKS[number % len(MARKS)]
    axes.plot(places, values, mark, color=colour(number), markersize=3.5, alpha=0.7)


def robustness_bars(
    scores: Sequence[PerturbedScore], region: str, metric: Metric, encoder_index: EncoderIndex
) -> "Figure":
    """Draw a metric at each severity, a bar per encoder with 95 % limits, a panel per family.

    Args:
        scores: scores of one dataset and ratio.
        region: the region.
        metric: the metric.
        encoder_index: number of each encoder.
    """
    scores = [s for s in scores if (s.region, s.metric) == (region, metric.key)]
    families = sorted({s.family for s in scores})
    encoders = [encoder for encoder in encoder_index if encoder in {s.encoder for s in scores}]
    figure, panels = new_figure(len(families), size=PANEL)
    width = 0.8 / len(encoders)
    for axes, family in zip(panels, families, strict=True):
        severities = sorted({s.severity for s in scores if s.family == family})
        for n, encoder in enumerate(encoders):
            own = {s.severity: s for s in scores if (s.family, s.encoder) == (family, encoder)}
            offset = (n - (len(encoders) - 1) / 2) * width
            places = [severities.index(severity) + offset for severity in own]
            _draw_bars(axes, places, list(own.values()), width * 0.92, encoder_index[encoder])
        axes.set(title=family, xlabel="severity")
        axes.set_xticks(range(len(severities)), [f"{severity:g}" for severity in severities])
    panels[0].set_ylabel(f"{metric.name}, {region}")
    _add_legend(figure, panels[0])
    return figure


def _draw_bars(
    axes: "Axes",
    places: Sequence[float],
    scores: Sequence[PerturbedScore],
    width: float,
    number: int,
) -> None:
    """Draw the bars of one encoder; limits that are NaN (one case) are not drawn."""
    values = np.array([score.value for score in scores])
    below = values - np.array([score.low for score in scores])
    above = np.array([score.high for score in scores]) - values
    axes.bar(
        places,
        values,
        width,
        yerr=np.clip(np.nan_to_num([below, above]), 0, None),
        color=colour(number),
        label=scores[0].encoder,
        capsize=2,
    )


def robustness_curves(
    scores: Sequence[PerturbedScore], region: str, metric: Metric, encoder_index: EncoderIndex
) -> "Figure":
    """Draw the change from the clean images over the severities, 95 % limits as bands.

    Args:
        scores: scores of one dataset and ratio.
        region: the region.
        metric: the metric.
        encoder_index: number of each encoder.
    """
    scores = [s for s in scores if (s.region, s.metric) == (region, metric.key)]
    families = sorted({s.family for s in scores})
    figure, panels = new_figure(len(families), size=PANEL)
    for axes, family in zip(panels, families, strict=True):
        for encoder, number in encoder_index.items():
            points = [s for s in scores if (s.family, s.encoder) == (family, encoder)]
            if points:
                draw_band(
                    axes,
                    [p.severity for p in points],
                    [p.change for p in points],
                    [p.change_low for p in points],
                    [p.change_high for p in points],
                    encoder,
                    number,
                )
        axes.axhline(0, color="#888888", linewidth=0.8)
        axes.set(title=family, xlabel="severity")
    panels[0].set_ylabel(f"change of {metric.name}, {region}")
    _add_legend(figure, panels[0])
    return figure
