"""Find what the labels of a folder mean: by a description, or by the schemes of BraTS."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nnunet_fm.data.choose_scheme import SchemeChoice, check_cavity, choose_scheme
from nnunet_fm.data.image_size import UnreadableImageError
from nnunet_fm.data.label_images import foreground, read_labels
from nnunet_fm.data.label_schemes import SCHEMES, BratsScheme
from nnunet_fm.evaluation.label_folders import cases_of
from nnunet_fm.evaluation.labels import NO_FOLDER, LabelScheme
from nnunet_fm.internal.errors import InputError, MissingFileError

# scheme of the labels that each configuration of `brats-evaluate` reads
OFFICIAL_SCHEMES = {
    "gli": "gli2024",
    "mets": "mets2025",
    "ped": "ped2024",
    "MenRT": "menrt",
    "MenPre": "men",
    "GoAT": "goat",
}


@dataclass(frozen=True)
class FoundLabels:
    """A label scheme, and where it comes from.

    Attributes:
        scheme: the regions to score.
        text: one line for the user.
    """

    scheme: LabelScheme
    text: str


def scheme_of_predictions(
    predictions: Path, truths: Path, dataset_json: Path | None = None, workers: int = 2
) -> FoundLabels:
    """Read the label scheme of a folder of predictions from its description.

    Args:
        predictions: folder of predictions.
        truths: folder of their truth.
        dataset_json: description of the dataset (default: `dataset.json` in the folder).
        workers: number of threads.

    Raises:
        FileNotFoundError: the folder or the description does not exist.
        ValueError: the description names a BraTS scheme, but the truth is of another challenge,
            with labels that mean something else.
    """
    description = _description(predictions, dataset_json)
    if not description.is_file():
        raise MissingFileError(
            f"{description} does not exist; give --dataset-json FILE, --scheme NAME, or --regions "
            "brats to find the scheme by the names of BraTS cases"
        )
    scheme = LabelScheme.read(description)
    if scheme.brats:
        cases = [
            case
            for case in cases_of(truths, scheme.ending)
            if not SCHEMES[scheme.brats].describes(case)
        ]
        labels = labels_of(truths, scheme.ending, workers, cases)
        _check_recorded(scheme.brats, labels, description)
    recorded = f", label scheme {scheme.brats}" if scheme.brats else ""
    return FoundLabels(scheme, f"regions of {description}{recorded}")


def brats_scheme(
    predictions: Path,
    truths: Path,
    name: str | None = None,
    dataset_json: Path | None = None,
    workers: int = 2,
) -> FoundLabels:
    """Find the BraTS scheme of a folder of predictions and its truth.

    Args:
        predictions: folder of predictions.
        truths: folder of their truth, with labels of the challenge or of nnU-Net.
        name: name of the scheme; if None, the one that the description names, or else the one that
            the case names and all labels of the truth tell.
        dataset_json: description of the dataset (default: `dataset.json` in the folder of the
            predictions); it may be missing.
        workers: number of threads.

    Raises:
        FileNotFoundError: a folder does not exist or is empty.
        ValueError: the scheme is unknown, not clear, or does not have all labels of the truth.
    """
    description = _description(predictions, dataset_json)
    described = LabelScheme.read(description) if description.is_file() else LabelScheme(())
    labels = labels_of(truths, described.ending, workers)
    if described.brats and name is None:
        _check_recorded(described.brats, labels, description)
    choice = choose_scheme(labels, name or described.brats or None, or_written=True)
    text = choice.text
    if described.brats and not name:
        text += f" in {description}"
    scheme = LabelScheme(
        choice.scored_regions, ending=described.ending, brats=name or described.brats
    )
    return FoundLabels(scheme, text)


def labels_of(
    folder: Path, ending: str, workers: int = 2, cases: Sequence[str] | None = None
) -> dict[str, frozenset[int]]:
    """Return the labels of files of a folder (default: of every file), by case, without 0.

    Files that cannot be read are left out; whoever scores them names them.

    Raises:
        ValueError: no file can be read.
    """
    cases = cases_of(folder, ending) if cases is None else cases
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = pool.map(_labels_in, [folder / f"{case}{ending}" for case in cases])
        results = list(tqdm(found, total=len(cases), desc="reading labels", leave=False))
    labels = {}
    for case, result in zip(cases, results, strict=True):
        if not isinstance(result, UnreadableImageError):
            labels[case] = result
    if results and not labels:
        raise next(result for result in results if isinstance(result, UnreadableImageError))
    return labels


def check_official(
    truths: Mapping[str, frozenset[int]],
    predictions: Mapping[str, frozenset[int]],
    challenge: str,
    name: str | None = None,
) -> None:
    """Check that labels mean what a configuration of `brats-evaluate` reads.

    Args:
        truths: labels in the truth of each case.
        predictions: labels in the prediction of each case.
        challenge: a key of `OFFICIAL_SCHEMES`.
        name: name of the scheme of the files; if None, it is found by the names of the cases, and
            cases of no challenge are taken to be of this one.

    Raises:
        ValueError: a label means something else, or nothing, to the tool.
    """
    official = SCHEMES[OFFICIAL_SCHEMES[challenge]]
    named = any(scheme.describes(case) for scheme in SCHEMES.values() for case in truths)
    choice = choose_scheme(truths, name if name or named else official.name, or_written=True)
    predicted = {f"the prediction of {case}": labels for case, labels in predictions.items()}
    _check_same_meaning({**truths, **predicted}, choice, official, f"--official {challenge}")


def _check_recorded(recorded: str, labels: Mapping[str, frozenset[int]], description: Path) -> None:
    """Check the truths whose names are not those of the recorded scheme's challenge."""
    scheme = SCHEMES[recorded]
    others = {case: values for case, values in labels.items() if not scheme.describes(case)}
    named = [case for case in others if any(s.describes(case) for s in SCHEMES.values())]
    foreign = {case: others.pop(case) for case in named}
    if foreign:
        choice = choose_scheme(foreign, or_written=True)
        _check_same_meaning(foreign, choice, scheme, str(description))
    check_cavity(others, scheme)


def _check_same_meaning(
    labels: Mapping[str, frozenset[int]], choice: SchemeChoice, reader: BratsScheme, name: str
) -> None:
    """Check that every label belongs to the same regions for its files and for its reader."""
    common = {region.name for region in choice.target.regions} & {r.name for r in reader.regions}
    scored = choice.scored_regions
    for case, values in labels.items():
        for label in sorted(values):
            meant = {r.name for r in scored if label in r.labels} & common
            read = {r.name for r in reader.scored_regions if label in r.labels} & common
            if meant != read or not read:
                raise InputError(
                    f"{case} has label {label} of {choice.target.name} ({choice.target.meaning}), "
                    f"but {name} reads {reader.name} ({reader.meaning}); give files with these "
                    "labels"
                )


def _labels_in(file: Path) -> frozenset[int] | UnreadableImageError:
    try:
        return foreground(read_labels(file).labels)
    except UnreadableImageError as error:
        return error


def _description(predictions: Path, dataset_json: Path | None) -> Path:
    if not predictions.is_dir():
        raise MissingFileError(f"{predictions} is {NO_FOLDER}")
    return dataset_json or predictions / "dataset.json"
