"""The volumes of a folder: an nnU-Net dataset, or NIfTI files and DICOM series in any layout."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_fm.data import bids
from nnunet_fm.data.image_checks import split_channel
from nnunet_fm.data.image_names import fault_of_folders, fault_of_words, find_fault
from nnunet_fm.data.sequences import (
    canonical_sequence,
    sequence_in_file_name,
    without_sequence,
)
from nnunet_fm.data.subject_ids import CANONICAL_PREFIX, subject_name
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.files import visible_files, walk_files
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data.source import UNKNOWN, Source

NNUNET_FOLDERS = ("imagesTr", "imagesTs")
# folders above those of the subjects
GROUP = re.compile(
    r"hgg|lgg|glioma|images(tr|ts)?|data|raw|nifti|nii|dicom|patients?|subjects?|cases?|controls?"
    r"|(.*[-_ ])?(train|training|val|validation|test|testing)([-_ ]?(data|set|dataset))?",
    re.IGNORECASE,
)
SUBJECT = re.compile(r"(sub|subj|subject|pat|patient|case)[-_ ]?\d+", re.IGNORECASE)
# folders below those of the subjects: visits, dates, numbers
SESSION = re.compile(
    r"(ses|session|visit|scan|mr|tp|bl|baseline|follow|fu|pre|post|day|month|year|week|run|exam"
    r"|study|anat|mri|nifti|nii|dicom|raw|orig|[vtmydi])[-_ ]?\w*|\d{1,3}"
    r"|(19|20)\d\d[-_.]?\d\d[-_.]?\d\d.*",
    re.IGNORECASE,
)

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """What the folders and the name of a file say.

    Attributes:
        subject: of a folder, or of the beginning of the file name.
        sequence: of the file name, or else of a folder; UNKNOWN if neither names one.
        groups: folders above the subject's.
        visits: folders below the subject's, without one that names the sequence.
        rest: part of the file name that tells it from its neighbours; may be empty.
        certain: whether the subject is certain: its folder's name is known or repeated by the file.
    """

    subject: str
    sequence: str
    groups: tuple[str, ...] = ()
    visits: tuple[str, ...] = ()
    rest: str = ""
    certain: bool = True

    @property
    def session(self) -> str:
        """What tells this volume from others of its subject and sequence; may be empty."""
        return "_".join([*self.visits, *([self.rest] if self.rest else [])])


def nnunet_images(given: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the image folder and the `dataset.json` of an nnU-Net raw dataset.

    Args:
        given: folder of the dataset, whose training images are meant; or its `imagesTr` or
            `imagesTs`.

    Returns:
        None if it is neither: there is no `dataset.json`, or it is not nnU-Net's.
    """
    is_inside = given.absolute().name in NNUNET_FOLDERS
    images = given if is_inside else given / NNUNET_FOLDERS[0]
    file = images.parent / "dataset.json"
    try:
        about = read_object(file)
    except (OSError, ValueError):
        return None
    is_nnunet = "file_ending" in about and isinstance(about.get("channel_names"), dict)
    return (images, about) if is_nnunet and images.is_dir() else None


def nnunet_sources(images: Path, about: dict[str, Any], dataset: str | None) -> list[Source]:
    """Find the volumes of one image folder of an nnU-Net dataset, and nothing else.

    Raises:
        FileNotFoundError: no file is named `CASE_0000` with the ending of `dataset.json`.
    """
    ending, names = about["file_ending"], about["channel_names"]
    sources = []
    others = []
    for path in visible_files(images, ""):
        named = split_channel(path.name, ending)
        channel = names.get(str(int(named[1]))) if named else None
        if named is None or channel is None:
            others.append(path.name)
            continue
        sequence = canonical_sequence(channel) or channel
        sources.append(Source(named[0], dataset or images.absolute().parent.name, sequence, path))
    if others:
        logger.warning(
            "skipped %d files of %s without a channel of dataset.json in their name "
            "(CASE_0000%s, ...): %s",
            len(others),
            images,
            ending,
            some(others),
        )
    if not sources:
        raise MissingFileError(
            f"{images} holds no images named CASE_0000{ending}, ...; give a folder that does"
        )
    return sources


def folder_sources(root: Path, dataset: str) -> list[Source]:
    """Find every NIfTI file that can be an image, and every DICOM series.

    Raises:
        ValueError: it is not clear which folders are the subjects.
    """
    files = list(walk_files(root))
    found: list[tuple[Place, Path]] = []
    for path in _images(files, root):
        stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
        folders = path.relative_to(root).parts[:-1]
        found.append((find_place(folders, stem, root.absolute().name), path))
    for path in _series(files, root):
        folders = path.relative_to(root).parts or (path.resolve().name,)
        found.append((find_place(folders, root=root.absolute().name), path))
    _refuse_unclear_subjects([place for place, _ in found])
    _refuse_repeated_subjects([place for place, _ in found])
    return [Source(p.subject, dataset, p.sequence, path, session=p.session) for p, path in found]


def find_place(folders: Sequence[str], stem: str = "", root: str = "") -> Place:
    """Find subject, session and sequence of a file.

    A BIDS name says all of them. Otherwise the subject is the first folder whose name the file name
    begins with; else the first that is an id of a known collection or a numbered patient; else the
    first that is not the name of a group (HGG, train, ...) or of a sequence; else the file name
    without its sequence; else, for `t1.nii.gz`, the given folder.

    Args:
        folders: between the given folder and the file.
        stem: file name without ending; empty for a DICOM series, whose folder is the last one.
        root: name of the given folder.
    """
    name = bids.parse_name(stem)
    if name is not None:
        return Place(name.entities["sub"], name.sequence or name.suffix, rest=name.variant)
    of_file = sequence_in_file_name(stem) if stem else None
    others = [f for f in folders if canonical_sequence(f) is None]
    sequence = of_file or _sequence_of_folders(folders)
    rest = stem if of_file is None else ""
    certain = [f for f in others if _begins_with(stem, f) and not GROUP.fullmatch(f)]
    certain = certain or [f for f in others if _is_known(f)]
    possible = certain or [f for f in others if not GROUP.fullmatch(f)]
    if not possible:
        subject = without_sequence(stem) or root or stem or folders[0]
        return Place(subject, sequence or UNKNOWN, tuple(others))
    index = others.index(possible[0])
    visits = others[index + 1 :]
    if not stem and visits and sequence_in_file_name(visits[-1]):
        visits.pop()  # a DICOM series in a folder such as 3_T1_MPRAGE
    return Place(
        possible[0],
        sequence or UNKNOWN,
        tuple(others[:index]),
        tuple(visits),
        rest,
        bool(certain),
    )


def _sequence_of_folders(folders: Sequence[str]) -> str | None:
    named = [canonical_sequence(folder) for folder in folders]
    spelled = [sequence for sequence in named if sequence]
    if spelled:
        return spelled[-1]
    return sequence_in_file_name(folders[-1]) if folders else None


def _begins_with(stem: str, folder: str) -> bool:
    following = stem[len(folder) : len(folder) + 1]
    return stem.lower().startswith(folder.lower()) and not following.isalnum()


def _is_known(folder: str) -> bool:
    is_numbered = SUBJECT.fullmatch(folder) is not None
    return is_numbered or subject_name(folder).startswith(CANONICAL_PREFIX)


def _refuse_unclear_subjects(places: Iterable[Place]) -> None:
    """Raise InputError if the folders inside those of the subjects may be the subjects.

    They may if there are several in one, they do not look like visits, and no other subject has
    folders of the same names.
    """
    inside: dict[str, set[str]] = {}
    for place in places:
        if not place.certain and place.visits:
            inside.setdefault(place.subject, set()).add(place.visits[0])
    for subject, names in inside.items():
        elsewhere = {n for other, those in inside.items() if other != subject for n in those}
        unclear = sorted(n for n in names - elsewhere if not SESSION.fullmatch(n))
        if len(unclear) > 1:
            raise InputError(
                f"are {some([f'{subject}/{name}' for name in unclear])} visits of one subject, or "
                "subjects? Give a CSV with the columns subject_id, session_id, dataset, sequence, "
                "path"
            )


def _refuse_repeated_subjects(places: Iterable[Place]) -> None:
    """Raise InputError if folders of one name lie in several groups: one subject, or two?"""
    groups: dict[str, set[str]] = {}
    for place in places:
        groups.setdefault(place.subject, set()).add("/".join([*place.groups, place.subject]))
    for subject, folders in groups.items():
        if len(folders) > 1:
            raise InputError(
                f"subject {subject} lies in several folders: {some(sorted(folders))}; one subject "
                "or several? Give a CSV with the columns subject_id, dataset, sequence, path"
            )


def _series(files: Iterable[Path], root: Path) -> list[Path]:
    """List the folders of DICOM files; those named like masks or maps are named and skipped."""
    folders = {path.parent for path in files if _is_dicom(path)}
    found = {p: _fault_of_series(p, root) if p != root else "" for p in folders}
    warn_of_skipped((fault, path) for path, fault in found.items() if fault)
    return sorted(path for path, fault in found.items() if not fault)


def _fault_of_series(folder: Path, root: Path) -> str:
    return fault_of_folders(folder, root) or fault_of_words(folder.name)


def _images(files: Iterable[Path], root: Path) -> list[Path]:
    """List the NIfTI files; those whose name says that they are no images are named and skipped."""
    found = {path: find_fault(path, root) for path in files if bids.is_nifti(path)}
    warn_of_skipped((fault, path) for path, fault in found.items() if fault)
    return sorted(path for path, fault in found.items() if not fault)


def warn_of_skipped(faults: Iterable[tuple[str, Path]]) -> None:
    """Name the files that are no images, if there are any."""
    skipped = list(faults)
    if skipped:
        logger.warning(
            "skipped %d files that are no images: %s", len(skipped), bids.list_faults(skipped)
        )


def _is_dicom(path: Path) -> bool:
    """Recognise a DICOM file by its ending, or by its first bytes if it has none or a number."""
    ending = path.suffix.lower()
    if ending in (".dcm", ".ima"):
        return not path.name.startswith(".")
    if ending.strip(".0123456789") or path.name == "DICOMDIR" or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
