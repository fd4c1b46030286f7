"""Where the volumes are: a CSV table, a BIDS tree, or a folder of NIfTI files and DICOM series."""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_fm.data import bids
from nnunet_fm.data.sequences import canonical_sequence, sequence_in_file_name
from nnunet_fm.data.table_rows import read_rows
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some

COLUMNS = ("subject_id", "dataset", "sequence", "path")
UNKNOWN = "unknown"
_NOT_IMAGES = re.compile("mask|seg|label|lesion|tumou?r|gold_standard", re.IGNORECASE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One volume to prepare.

    Attributes:
        subject: its name within the dataset.
        dataset: name of the collection.
        sequence: as `sequences.SPELLINGS` names it, or as given.
        path: NIfTI file, or folder of one DICOM series.
        mask: brain mask, if given.
        session: visit, run or whatever tells two volumes of one subject and sequence apart; may be
            empty.
        licence: a note that goes into the manifest.
    """

    subject: str
    dataset: str
    sequence: str
    path: Path
    mask: Path | None = None
    session: str = ""
    licence: str = ""

    @property
    def name(self) -> str:
        """Return the path of the volume inside the store, without its ending."""
        parts = [p for p in (self.subject, self.session, self.sequence) if p]
        return f"{_safe(self.dataset)}/{'_'.join(_safe(p) for p in parts)}"


def find_sources(given: Path, dataset: str | None = None, licence: str = "") -> list[Source]:
    """Find the volumes below `given`, sorted by name.

    Args:
        given: CSV or TSV with the columns of `COLUMNS` (and `mask`, `session_id`, `licence`), BIDS
            tree, nnU-Net raw dataset (its training images only), or any other folder.
        dataset: name of the collection, where the input does not say it; the folder's own name if
            None.
        licence: note for volumes that have none of their own.

    Raises:
        FileNotFoundError: nothing there, or no image in it.
        ValueError: columns are missing, or two volumes have one name.
    """
    if not given.exists():
        raise MissingFileError(
            f"{given} does not exist; give a folder, a BIDS tree or a CSV ({', '.join(COLUMNS)})"
        )
    nnunet = next(
        (f for f in (given, given.parent) if (f / "dataset.json").is_file() and given.is_dir()),
        None,
    )
    if given.is_file():
        sources = _from_table(given)
    elif nnunet is not None:
        sources = _from_nnunet(nnunet, dataset)
    elif bids.is_bids(given):
        sources = _from_bids(given, dataset)
    else:
        sources = _from_folder(given, dataset or given.resolve().name)
    if not sources:
        raise MissingFileError(
            f"no .nii, .nii.gz or DICOM series in {given}; give a folder that holds some"
        )
    _refuse_duplicates(sources)
    return sorted((replace(s, licence=s.licence or licence) for s in sources), key=lambda s: s.name)


def _from_table(path: Path) -> list[Source]:
    if bids.is_nifti(path):
        raise InputError(
            f"{path} is one image; give the folder that it lies in, or a CSV ({', '.join(COLUMNS)})"
        )
    rows = read_rows(path)
    rows.require(*COLUMNS)
    sources = []
    for line, cells in rows.numbered():
        empty = [column for column in COLUMNS if not cells[column]]
        image = rows.path(cells, "path")
        if empty or image is None:
            raise InputError(
                f"{path}, line {line}: {', '.join(empty or ['path'])} is empty; "
                f"allowed: a value in each of {COLUMNS}"
            )
        sources.append(
            Source(
                subject=cells["subject_id"],
                dataset=cells["dataset"],
                sequence=canonical_sequence(cells["sequence"]) or cells["sequence"],
                path=image,
                mask=rows.path(cells, "mask"),
                session=rows.session(cells),
                licence=cells.get("licence", ""),
            )
        )
    return sources


def _from_bids(root: Path, dataset: str | None) -> list[Source]:
    description = root / bids.DESCRIPTION
    about = json.loads(description.read_text()) if description.is_file() else {}
    name = dataset or about.get("Name") or root.resolve().name
    sources = []
    images = {image.path: image for image in bids.find_images(root)}
    for path in _images(images):
        image = images[path]
        sources.append(
            Source(
                image.subject,
                name,
                image.sequence or image.suffix,
                path,
                session="_".join(e for e in image.entities if not e.startswith("ce-")),
                licence=str(about.get("License", "")),
            )
        )
    return sources


def _from_folder(root: Path, dataset: str) -> list[Source]:
    """Find every NIfTI file and DICOM series.

    The subject is the folder below the root, or else the beginning of the file name.
    """
    sources = []
    for path in _images(root.rglob("*")):
        sequence = sequence_in_file_name(path.name)
        inside = path.relative_to(root).parts[:-1]
        stem = re.sub(r"\.nii(\.gz)?$", "", path.name)
        subject = inside[0] if inside else (_without_sequence(stem) if sequence else stem)
        session = "_".join(inside[1:])
        if (
            inside and sequence is None
        ):  # the file name is all there is to tell it from its neighbours
            session = "_".join([*inside[1:], stem])
        sources.append(Source(subject, dataset, sequence or UNKNOWN, path, session=session))
    for path in sorted({p.parent for p in root.rglob("*") if _is_dicom(p)}):
        inside = path.relative_to(root).parts or (path.resolve().name,)
        sequence = sequence_in_file_name(inside[-1]) or UNKNOWN
        session = "_".join(inside[1:] if sequence == UNKNOWN else inside[1:-1])
        sources.append(Source(inside[0], dataset, sequence, path, session=session))
    return sources


def _from_nnunet(root: Path, dataset: str | None) -> list[Source]:
    about = json.loads((root / "dataset.json").read_text())
    ending, names = about["file_ending"], about["channel_names"]
    sources = []
    for path in sorted((root / "imagesTr").glob(f"*{ending}")):
        subject, _, channel = path.name.removesuffix(ending).rpartition("_")
        sequence = names.get(str(int(channel)), UNKNOWN) if channel.isdigit() else UNKNOWN
        sources.append(
            Source(subject, dataset or root.name, canonical_sequence(sequence) or sequence, path)
        )
    return sources


def _images(paths: Iterable[Path]) -> list[Path]:
    """List the NIfTI files; those whose name or folder names labels are skipped with a warning."""
    found = sorted(p for p in paths if bids.is_nifti(p))
    labels = [
        p for p in found if _NOT_IMAGES.search(p.name) or p.parent.name.lower().startswith("labels")
    ]
    if labels:
        logger.warning(
            "skipped %d files that are named like labels: %s",
            len(labels),
            some([p.name for p in labels]),
        )
    return [p for p in found if p not in set(labels)]


def _without_sequence(stem: str) -> str:
    words = re.split(r"([_\-.])", stem)
    kept = [w for w in words if canonical_sequence(w) is None]
    return re.sub(r"[_\-.]{2,}", "_", "".join(kept)).strip("_-.") or stem


def _refuse_duplicates(sources: Sequence[Source]) -> None:
    count = Counter(
        s.name.lower() for s in sources
    )  # some file systems take upper and lower case for the same
    twice = list(dict.fromkeys(s.name for s in sources if count[s.name.lower()] > 1))
    if twice:
        files = [str(s.path) for s in sources if s.name.lower() == twice[0].lower()]
        raise InputError(
            f"{len(twice)} names belong to several volumes: {some(twice)} (e.g. {some(files)}). "
            "Spellings of one sequence count as one. "
            "Allowed: one volume per dataset, subject, session and sequence; "
            "give a CSV with a column `session_id`"
        )


def _is_dicom(path: Path) -> bool:
    """Recognise a DICOM file by its ending, or by its first bytes if it has none or a number."""
    ending = path.suffix.lower()
    if ending in (".dcm", ".ima"):
        return True
    if ending.strip(".0123456789") or path.name == "DICOMDIR" or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _safe(text: str) -> str:
    """Return a safe file name: characters other than letters, digits and .-_ become codes."""
    return re.sub(r"[^A-Za-z0-9.\-_]", lambda m: f"%{ord(m.group()):02x}", text)
