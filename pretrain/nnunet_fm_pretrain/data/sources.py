"""Where the volumes are: a CSV table, a BIDS tree, or a folder of NIfTI files and DICOM series."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_fm.data import bids
from nnunet_fm.data.sequences import canonical_sequence
from nnunet_fm.data.table_rows import read_rows
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data import acquisition
from nnunet_fm_pretrain.data.folder_sources import (
    folder_sources,
    nnunet_images,
    nnunet_sources,
    warn_of_skipped,
)
from nnunet_fm_pretrain.data.source import Source

COLUMNS = ("subject_id", "dataset", "sequence", "path")


def find_sources(given: Path, dataset: str | None = None, licence: str = "") -> list[Source]:
    """Find the volumes below `given`, sorted by name.

    Args:
        given: CSV or TSV with the columns of `COLUMNS` (and `mask`, `session_id`, `licence`, and
            those of `Acquisition`), BIDS tree, nnU-Net raw dataset (its training images
            only) or an image folder of one, or any other folder.
        dataset: name of the collection, where the input does not say it; the folder's own name if
            None.
        licence: note for volumes that have none of their own.

    Raises:
        FileNotFoundError: nothing there, or no image in it.
        ValueError: columns are missing, two volumes have one name, or it is not clear which folders
            are the subjects.
    """
    if not given.exists():
        raise MissingFileError(
            f"{given} does not exist; give a folder, a BIDS tree or a CSV ({', '.join(COLUMNS)})"
        )
    nnunet = nnunet_images(given)
    if given.is_file():
        sources = _from_table(given)
    elif nnunet is not None:
        sources = nnunet_sources(*nnunet, dataset)
    elif bids.is_bids(given):
        sources = _from_bids(given, dataset)
    else:
        sources = folder_sources(given, dataset or given.resolve().name)
    if not sources:
        raise MissingFileError(
            f"no .nii, .nii.gz or DICOM series in {given} that can be an image; give a folder that "
            f"holds some, or a CSV ({', '.join(COLUMNS)}) that names them whatever they are called"
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
                acquisition=acquisition.from_cells(cells, f"{path}, line {line}"),
            )
        )
    return sources


def _from_bids(root: Path, dataset: str | None) -> list[Source]:
    about = bids.read_description(root)
    name = dataset or about.get("Name") or root.resolve().name
    images = list(bids.find_images(root))
    warn_of_skipped((image.fault, image.path) for image in images if image.fault)
    sources = []
    for image in images:
        if image.fault or image.name is None:
            continue
        session = image.name.variant
        if image.session and "ses" not in image.name.entities:
            session = "_".join(filter(None, [f"ses-{image.session}", session]))
        sources.append(
            Source(
                image.subject,
                name,
                image.name.sequence or image.name.suffix,
                image.path,
                session=session,
                licence=str(about.get("License", "")),
            )
        )
    if not sources:
        raise MissingFileError(
            f"no raw anatomical image in the anat folders of the BIDS dataset {root} "
            f"({len(images)} files that are no such images); to use derivatives or other files, "
            f"give a CSV ({', '.join(COLUMNS)})"
        )
    return sources


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
