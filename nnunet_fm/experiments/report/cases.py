"""Worst and median cases: their choice, a picture of a slice, and volumes for the viewer."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage

from nnunet_fm.data.grids import Grid, read_grid, read_on_grid, upright
from nnunet_fm.data.label_images import whole_labels
from nnunet_fm.data.sequences import channel_names
from nnunet_fm.evaluation.labels import LabelScheme
from nnunet_fm.experiments.encoder_runs import EncoderRuns, RunKey, repeat_order
from nnunet_fm.experiments.report.figures import EncoderIndex
from nnunet_fm.experiments.run_scores import ScoredRun
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.plotting import colour
from nnunet_fm.nnunet.dataset_files import read_dataset_json
from nnunet_fm.nnunet.file_names import DATASET_JSON, GROUND_TRUTH
from nnunet_fm.nnunet.raw_images import raw_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PREDICTIONS = 5  # shown at once
PERCENTILES = (0.5, 99.5)  # of a channel's voxels, black and white
LINE_STYLES = ("solid", "dashed", "dotted", "dashdot", (0, (5, 1)), (0, (1, 1)))
TRUTH_COLOUR = "#FFFFFF"
LARGEST_SHOWN = np.iinfo(np.uint8).max  # label
GREY_LEVELS = 64  # of the viewer; more would add megabytes and no visible difference
Labels = Integer[np.ndarray, "z y x"]
Volume = Float[np.ndarray, "z y x"]


@dataclass(frozen=True)
class ReportCase:
    """A case to look at.

    Attributes:
        dataset: full name of the dataset.
        name: name of the case.
        role: `worst`, `median`, `asked`, or several of them.
        dice: Dice of each prediction, by encoder.
        spacing: mm along z, y, x.
        channels: raw intensities by name.
        truth: true labels.
        predictions: predicted labels by encoder.
        scheme: what the labels mean.
    """

    dataset: str
    name: str
    role: str
    dice: dict[str, float]
    spacing: tuple[float, ...]
    channels: dict[str, Volume]
    truth: Labels
    predictions: dict[str, Labels]
    scheme: LabelScheme

    @property
    def main_slice(self) -> int:
        """Number of the slice with most foreground.

        That of the truth, of the first prediction that has any if the truth is empty, or else the
        middle slice.
        """
        foreground = [label for region in self.scheme.regions for label in region.labels]
        for labels in (self.truth, *self.predictions.values()):
            counts = np.isin(labels, foreground).sum((1, 2))
            if counts.any():
                return int(counts.argmax())
        return len(self.truth) // 2


def choose_cases(
    groups: Sequence[EncoderRuns], reference: str, region: str, asked: Sequence[str] = ()
) -> dict[str, str]:
    """Choose cases by the Dice of the reference, at the largest ratio that it has.

    Args:
        groups: groups of one dataset.
        reference: name of an encoder.
        region: the region whose Dice is used.
        asked: names of further cases.

    Returns:
        Role of each case, by its name.
    """
    group = max((g for g in groups if g.encoder == reference), key=lambda g: g.ratio)
    dice = group.by_case(region, "dice")
    ordered = sorted(dice, key=lambda case: dice[case])
    choices = [(ordered[0], "worst"), (ordered[len(ordered) // 2], "median")]
    choices += [(case, "asked") for case in asked]
    roles: dict[str, str] = {}
    for case, role in choices:
        if case in roles:
            roles[case] = f"{roles[case]}, {role}"
        elif case in dice:
            roles[case] = role
    return roles


def read_cases(
    groups: Sequence[EncoderRuns],
    reference: str,
    region: str,
    raw: Path,
    preprocessed: Path,
    asked: Sequence[str] = (),
) -> list[ReportCase]:
    """Read the chosen cases: images, truth, and predictions of up to five encoders.

    The predictions are those of the reference's largest ratio and the first seed; the reference
    comes first.

    Args:
        groups: groups of one dataset.
        reference: encoder that the cases are chosen by.
        region: the region whose Dice is used.
        raw: nnUNet_raw.
        preprocessed: nnUNet_preprocessed, which holds the ground truth.
        asked: names of further cases.

    Raises:
        FileNotFoundError: the raw images are missing.
        ValueError: an image cannot be read or drawn.
    """
    ratio = max(group.ratio for group in groups if group.encoder == reference)
    of_ratio = [group for group in groups if group.ratio == ratio]
    shown = sorted(of_ratio, key=lambda group: group.encoder != reference)[:MAX_PREDICTIONS]
    roles = choose_cases(groups, reference, region, asked)
    images = raw_images(groups[0].dataset, list(roles), raw)
    return [
        _read_case(case, role, images[case], shown, region, preprocessed)
        for case, role in roles.items()
    ]


def _read_case(
    case: str,
    role: str,
    images: Sequence[Path],
    shown: Sequence[EncoderRuns],
    region: str,
    preprocessed: Path,
) -> ReportCase:
    dataset = shown[0].dataset
    description = shown[0].runs[0].run.folder.parent / DATASET_JSON
    facts = read_dataset_json(description, "file_ending", "labels")
    file = f"{case}{facts['file_ending']}"
    truth_file = preprocessed / dataset / GROUND_TRUTH / file
    grid = upright(read_grid(truth_file))
    names = channel_names(facts).values()
    channels = {}
    for name, image in zip(names, images, strict=True):
        channels[name] = _read_volume(image, grid).astype(np.float32)
    dice = {}
    predictions = {}
    for group in shown:
        scored = _run_with(group, case)
        if scored is None:
            continue
        predictions[group.encoder] = _read_labels(scored.run.folder / "validation" / file, grid)
        scores = {(score.case, score.region): score.dice for score in scored.scores}
        dice[group.encoder] = scores[case, region]
    return ReportCase(
        dataset=dataset,
        name=case,
        role=role,
        dice=dice,
        spacing=tuple(reversed(grid.spacing)),
        channels=channels,
        truth=_read_labels(truth_file, grid),
        predictions=predictions,
        scheme=LabelScheme.read(description),
    )


def _run_with(group: EncoderRuns, case: str) -> ScoredRun | None:
    """Return the first seed's run that validated a case; None while its fold is unfinished."""
    runs = [run for run in group.runs if case in run.cases]
    return min(runs, key=lambda run: repeat_order(RunKey.of(run).repeat), default=None)


def _read_labels(file: Path, grid: Grid) -> Labels:
    """Read labels, which the viewer keeps in 8 bits."""
    labels = whole_labels(_read_volume(file, grid), file)
    if labels.min() < 0 or labels.max() > LARGEST_SHOWN:
        raise InputError(
            f"{file} has labels from {labels.min()} to {labels.max()}; pictures show 0 to "
            f"{LARGEST_SHOWN}"
        )
    return labels


def _read_volume(file: Path, grid: Grid) -> np.ndarray:
    """Read an image on a grid as a volume (z, y, x); a picture becomes one slice."""
    values = read_on_grid(file, grid)
    return values if values.ndim == 3 else values[None]


def draw_case(case: ReportCase, encoder_index: EncoderIndex) -> "Figure":
    """Draw the slice with most foreground: the image, then truth and predictions as contours.

    Args:
        case: the case.
        encoder_index: number of each encoder, for its colour.
    """
    from matplotlib.figure import Figure

    columns = 2 + len(case.predictions)
    figure = Figure(figsize=(2.3 * columns, 2.8), layout="constrained", facecolor="white")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    _draw_slice(panels[0], case, "image")
    _draw_slice(panels[1], case, "truth")
    _draw_contours(panels[1], case, case.truth, TRUTH_COLOUR)
    for axes, (encoder, labels) in zip(panels[2:], case.predictions.items(), strict=True):
        _draw_slice(axes, case, f"{encoder}\nDice {case.dice[encoder]:.3f}")
        _draw_contours(axes, case, labels, colour(encoder_index[encoder]))
    return figure


def _draw_slice(axes: "Axes", case: ReportCase, title: str) -> None:
    """Draw the first channel in grey, pixels as high and wide as they are in mm."""
    pixels = next(iter(case.channels.values()))[case.main_slice]
    low, high = np.percentile(pixels, PERCENTILES)
    aspect = case.spacing[1] / case.spacing[2]
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, aspect=aspect)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)


def _draw_contours(axes: "Axes", case: ReportCase, labels: Labels, line_colour: str) -> None:
    """Draw the outline of every region, each with its own line style."""
    for number, region in enumerate(case.scheme.regions):
        mask = np.isin(labels[case.main_slice], region.labels)
        if mask.any():
            style = LINE_STYLES[number % len(LINE_STYLES)]
            axes.contour(mask, [0.5], colors=line_colour, linewidths=1.3, linestyles=[style])


def viewer_data(case: ReportCase, encoder_index: EncoderIndex) -> dict[str, Any]:
    """Return a case for the viewer: 8-bit volumes cropped to what is not empty, gzip, base64.

    Args:
        case: the case.
        encoder_index: number of each encoder, for its colour.
    """
    box = ndimage.find_objects(_non_empty(case).astype(np.uint8))[0]
    labels = [_viewer_labels("truth", TRUTH_COLOUR, case.truth[box])]
    for encoder, prediction in case.predictions.items():
        line_colour = colour(encoder_index[encoder])
        labels.append(_viewer_labels(encoder, line_colour, prediction[box]))
    channels = [
        {"name": name, "voxels": _pack(_to_eight_bits(channel)[box])}
        for name, channel in case.channels.items()
    ]
    return {
        "name": f"{case.name} ({case.role})",
        "shape": [side.stop - side.start for side in box],
        "spacing": list(case.spacing),
        "channels": channels,
        "labels": labels,
        "regions": [{"name": r.name, "labels": list(r.labels)} for r in case.scheme.regions],
        "start": case.main_slice - box[0].start,
    }


def _non_empty(case: ReportCase) -> Bool[np.ndarray, "z y x"]:
    """Return the voxels above the background of any channel, or labelled by anyone."""
    masks = [channel > channel.min() for channel in case.channels.values()]
    masks += [labels > 0 for labels in (case.truth, *case.predictions.values())]
    inside: np.ndarray = np.any(masks, axis=0)
    return inside


def _viewer_labels(name: str, line_colour: str, voxels: Labels) -> dict[str, str]:
    return {"name": name, "colour": line_colour, "voxels": _pack(voxels)}


def _to_eight_bits(channel: Volume) -> Integer[np.ndarray, "z y x"]:
    """Scale intensities between two percentiles of the foreground to grey levels of 0 to 255."""
    foreground = channel[channel > channel.min()]
    low, high = np.percentile(foreground, PERCENTILES) if len(foreground) else (0.0, 1.0)
    levels = (channel - low) / max(high - low, 1e-6) * (GREY_LEVELS - 1)
    levels = np.clip(levels, 0, GREY_LEVELS - 1).round()
    return (levels * (255 / (GREY_LEVELS - 1))).astype(np.uint8)


def _pack(voxels: Integer[np.ndarray, "z y x"]) -> str:
    packed = gzip.compress(np.ascontiguousarray(voxels, np.uint8).tobytes(), 9, mtime=0)
    return base64.b64encode(packed).decode()
