"""Worst and median cases: which they are, their slices as a picture, their volumes for the viewer."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from batchgenerators.utilities.file_and_folder_operations import load_json
from jaxtyping import Float, Integer
from scipy import ndimage

from nnunet_fm.evaluation.labels import LabelScheme
from nnunet_fm.experiments.report.figures import Lines
from nnunet_fm.experiments.run_scores import ScoredRun
from nnunet_fm.experiments.summary import Group
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.plotting import colour
from nnunet_fm.nnunet.raw_images import raw_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREDICTIONS = 5  # shown at once
PERCENTILES = (0.5, 99.5)  # of a channel's voxels, black and white
STYLES = ("solid", "dashed", "dotted", "dashdot", (0, (5, 1)), (0, (1, 1)))
TRUTH = "#FFFFFF"
GREYS = 64  # of the viewer; more cost megabytes and are not seen
Labels = Integer[np.ndarray, "z y x"]


@dataclass(frozen=True)
class Case:
    """A case to look at.

    Attributes:
        dataset, name: which.
        role: `worst`, `median`, `asked`, or several of them.
        dice: of each prediction that is shown.
        spacing: mm along z, y, x.
        channels: raw intensities by name.
        truth: labels.
        predictions: labels by encoder.
        labelling: what the labels mean.
    """

    dataset: str
    name: str
    role: str
    dice: dict[str, float]
    spacing: tuple[float, ...]
    channels: dict[str, Float[np.ndarray, "z y x"]]
    truth: Labels
    predictions: dict[str, Labels]
    labelling: LabelScheme

    @property
    def middle(self) -> int:
        """Number of the slice with most foreground: of the truth, or of the predictions where it is empty."""
        for labels in (self.truth, *self.predictions.values()):
            counts = np.isin(labels, [n for r in self.labelling.regions for n in r.labels]).sum(
                (1, 2)
            )
            if counts.any():
                return int(counts.argmax())
        return len(self.truth) // 2


def choose(
    found: Sequence[Group], reference: str, region: str, asked: Sequence[str] = ()
) -> dict[str, str]:
    """Cases by name with their role: by the Dice of the reference at the largest ratio that it has.

    Args:
        found: groups of one dataset.
        reference: encoder.
        region: whose Dice.
        asked: names of further cases.
    """
    group = max((g for g in found if g.encoder == reference), key=lambda g: g.ratio)
    values = group.by_case(region, "dice")
    ordered = sorted(values, key=lambda c: values[c])
    roles = [
        (ordered[0], "worst"),
        (ordered[len(ordered) // 2], "median"),
        *((c, "asked") for c in asked),
    ]
    chosen: dict[str, str] = {}
    for case, role in roles:
        if case in values:
            chosen[case] = f"{chosen[case]}, {role}" if case in chosen else role
    return chosen


def read_cases(
    found: Sequence[Group],
    reference: str,
    region: str,
    raw: Path,
    preprocessed: Path,
    asked: Sequence[str] = (),
) -> list[Case]:
    """The chosen cases with images, truth and predictions of the largest ratio's first seed.

    Of up to five encoders, the reference first.

    Args:
        found: groups of one dataset.
        reference: encoder that the cases are chosen by.
        region: whose Dice chooses.
        raw: nnUNet_raw.
        preprocessed: nnUNet_preprocessed, where the ground truth is.
        asked: names of further cases.

    Raises:
        FileNotFoundError: the raw images are not there.
    """
    ratio = max(g.ratio for g in found if g.encoder == reference)
    of_ratio = sorted((g for g in found if g.ratio == ratio), key=lambda g: g.encoder != reference)
    shown = of_ratio[:PREDICTIONS]  # the reference first
    chosen = choose(found, reference, region, asked)
    images = raw_images(found[0].dataset, list(chosen), raw)
    return [
        _read(case, role, images[case], shown, region, preprocessed)
        for case, role in chosen.items()
    ]


def _read(
    case: str,
    role: str,
    images: Sequence[Path],
    shown: Sequence[Group],
    region: str,
    preprocessed: Path,
) -> Case:
    runs = {g.encoder: run for g in shown if (run := _run_with(g, case))}
    description = shown[0].runs[0].run.folder.parent / "dataset.json"
    facts = load_json(str(description))
    file = f"{case}{facts['file_ending']}"
    truth, spacing = _labels(preprocessed / shown[0].dataset / "gt_segmentations" / file)
    names = list((facts.get("channel_names") or facts["modality"]).values())
    return Case(
        dataset=shown[0].dataset,
        name=case,
        role=role,
        dice={
            e: next(s.dice for s in r.scores if (s.case, s.region) == (case, region))
            for e, r in runs.items()
        },
        spacing=spacing,
        channels={
            name: _upright(image)[0].astype(np.float32)
            for name, image in zip(names, images, strict=True)
        },
        truth=truth,
        predictions={e: _labels(r.run.folder / "validation" / file)[0] for e, r in runs.items()},
        labelling=LabelScheme.read(description),
    )


def _run_with(group: Group, case: str) -> ScoredRun | None:
    """The run of the first seed that validated a case; None while that fold is not finished."""
    runs = (r for r in group.runs if any(s.case == case for s in r.scores))
    return min(runs, key=lambda r: r.run.seed, default=None)


def _labels(file: Path) -> tuple[Labels, tuple[float, ...]]:
    array, spacing = _upright(file)
    return array.astype(np.uint8), spacing


def _upright(file: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Voxels so that z runs up, y to the back and x to the patient's left; the picture's left is the right side."""
    image = sitk.ReadImage(str(file))
    if image.GetDimension() == 3:
        image = sitk.DICOMOrient(image, "LPS")
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(
            f"{file} has several colours a pixel; pictures are drawn of one channel a file"
        )
    array = sitk.GetArrayFromImage(image)
    spacing = tuple(float(s) for s in reversed(image.GetSpacing()))
    return (array, spacing) if array.ndim == 3 else (array[None], (1.0, *spacing))


def draw_case(case: Case, lines: Lines) -> "Figure":
    """The slice with most foreground: image, truth, and each prediction as a contour over it."""
    from matplotlib.figure import Figure

    z = case.middle
    channel = next(iter(case.channels.values()))[z]
    low, high = np.percentile(channel, PERCENTILES)
    columns = 2 + len(case.predictions)
    figure = Figure(figsize=(2.3 * columns, 2.8), layout="constrained", facecolor="white")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    masks: list[tuple[str, Labels | None, str]] = [
        ("image", None, TRUTH),
        ("truth", case.truth, TRUTH),
    ]
    masks += [(name, labels, colour(lines[name])) for name, labels in case.predictions.items()]
    for axes, (name, labels, line) in zip(panels, masks, strict=True):
        axes.imshow(
            channel, cmap="gray", vmin=low, vmax=high, aspect=case.spacing[1] / case.spacing[2]
        )
        axes.set_axis_off()
        for n, region in enumerate(case.labelling.regions if labels is not None else ()):
            mask = np.isin(labels[z], region.labels) if labels is not None else np.zeros(0)
            if mask.any():
                axes.contour(
                    mask, [0.5], colors=line, linewidths=1.3, linestyles=[STYLES[n % len(STYLES)]]
                )
        dice = f"\nDice {case.dice[name]:.3f}" if name in case.dice else ""
        axes.set_title(f"{name}{dice}", fontsize=9)
    return figure


def viewer_data(case: Case, lines: Lines) -> dict[str, Any]:
    """A case as the viewer takes it: 8 bit volumes cut to what is not empty, gzip, base64."""
    labelled = np.any([v > 0 for v in (case.truth, *case.predictions.values())], axis=0)
    inside = np.any([c > c.min() for c in case.channels.values()], axis=0) | labelled
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    labels = {"truth": case.truth, **case.predictions}
    colours = {"truth": TRUTH} | {name: colour(lines[name]) for name in case.predictions}
    return {
        "name": f"{case.name} ({case.role})",
        "shape": [s.stop - s.start for s in box],
        "spacing": list(case.spacing),
        "channels": [
            {"name": n, "voxels": _packed(_eight_bits(c)[box])} for n, c in case.channels.items()
        ],
        "labels": [
            {"name": n, "colour": colours[n], "voxels": _packed(v[box])} for n, v in labels.items()
        ],
        "regions": [{"name": r.name, "labels": list(r.labels)} for r in case.labelling.regions],
        "start": case.middle - box[0].start,
    }


def _eight_bits(channel: Float[np.ndarray, "z y x"]) -> Integer[np.ndarray, "z y x"]:
    inside = channel[channel > channel.min()]
    low, high = np.percentile(inside, PERCENTILES) if len(inside) else (0.0, 1.0)
    greys = np.clip((channel - low) / max(high - low, 1e-6) * (GREYS - 1), 0, GREYS - 1).round()
    return (greys * (255 / (GREYS - 1))).astype(np.uint8)


def _packed(voxels: Integer[np.ndarray, "z y x"]) -> str:
    packed = gzip.compress(np.ascontiguousarray(voxels, np.uint8).tobytes(), 9, mtime=0)
    return base64.b64encode(packed).decode()
