"""Tables of subjects: visits with their images, splits and targets."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_fm.data import bids
from nnunet_fm.data.bids_visits import find_visits
from nnunet_fm.data.image_names import fault_of_words
from nnunet_fm.data.sequences import canonical_sequence
from nnunet_fm.data.table_rows import (
    SESSION_COLUMN,
    SESSION_COLUMNS,
    Rows,
    is_missing,
    is_path,
    read_rows,
)
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some, unknown

logger = logging.getLogger(__name__)

SPLIT_COLUMN = "split"
MASK_COLUMN = "mask"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Row:
    """One visit of a subject.

    Attributes:
        subject: subject id; all rows of one subject belong to one split.
        session: visit; may be empty.
        split: `train`, `val`, `test`, or empty.
        volumes: path of each modality that the row has.
        mask: brain mask, if given.
        values: text of all columns.
    """

    subject: str
    session: str
    split: str
    volumes: dict[str, Path]
    mask: Path | None = None
    values: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Subject and session."""
        return f"{self.subject}/{self.session}" if self.session else self.subject


@dataclass(frozen=True)
class Table:
    """Visits in the order of the file, and the names of its modalities and of all its columns."""

    file: Path
    rows: list[Row]
    modalities: tuple[str, ...]
    columns: tuple[str, ...]

    def select_modalities(self, modalities: Sequence[str] | None) -> tuple[str, ...]:
        """Return the requested modalities; all of the table's if None.

        Raises:
            ValueError: the table lacks one of them.
        """
        requested = tuple(modalities or self.modalities)
        if self.file.name == bids.PARTICIPANTS:
            requested = _sequences(requested, self.modalities)
        lacking = sorted(set(requested) - set(self.modalities))
        if lacking:
            raise InputError(
                f"unknown modality {some(lacking)}; the table has {', '.join(self.modalities)}"
            )
        return requested

    @property
    def test_rows(self) -> list[Row]:
        """Rows of the split `test`; all rows if there is none (cross-validation)."""
        return [row for row in self.rows if row.split == "test"] or self.rows


def read_table(
    file: Path | str,
    modalities: Sequence[str] | None = None,
    prefer: Sequence[str] = (),
) -> Table:
    """Read visits from a CSV or TSV, or from the `participants.tsv` of a BIDS dataset.

    Args:
        file: table with `subject_id` (or `participant_id`); optional columns are `session_id`,
            `split`, `mask`, targets, and one column of paths per modality, absolute or relative
            to the file. A BIDS table has no columns of paths: images are found by their names.
        modalities: columns that hold paths (BIDS: names such as T1 and FLAIR); recognised by
            their content if None.
        prefer: which of several images of one sequence to take, e.g. `["acq=mprage"]` (BIDS).

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: no id column, no volume, a subject in two splits, a duplicate visit, an unknown
            modality or split; BIDS: several candidates for an image, or subjects that are lost, see
            `bids_visits.find_visits`.
    """
    file = Path(file)
    rows = read_rows(file)
    if not rows.cells:
        raise InputError(f"{file} has no rows")
    _check_split_column(rows)
    nameless = [str(line) for line, cells in rows.numbered() if not rows.subject(cells)]
    if nameless:
        raise InputError(f"{file}: no subject in line {some(nameless)}")
    path_columns = _path_columns(rows)
    if path_columns or file.name != bids.PARTICIPANTS:
        if prefer:
            raise InputError(
                f"--prefer {prefer[0]} chooses between the images of a BIDS dataset, and {file} "
                "names its images itself; remove it"
            )
        selected = _check_path_columns(rows, tuple(modalities or path_columns))
        visits = [_visit(rows, cells, selected) for cells in rows.cells]
    else:
        visits = _bids_visits(rows, modalities, bids.parse_preferences(prefer))
        selected = tuple(sorted({name for visit in visits for name in visit.volumes}))
    _check(file, visits)
    return Table(file, visits, selected, rows.columns)


def _check_split_column(rows: Rows) -> None:
    """Refuse a column `Split`, which would be ignored."""
    alike = [name for name in rows.columns if name.casefold() == SPLIT_COLUMN]
    if alike and SPLIT_COLUMN not in alike:
        raise InputError(
            f"{rows.file} has a column {alike[0]}; call it {SPLIT_COLUMN} if it says which rows "
            "are for training and testing, and something else if not"
        )


def _path_columns(rows: Rows) -> tuple[str, ...]:
    """Return the columns whose every value, if not missing, is the path of an image."""
    names = []
    for column in rows.columns:
        values = [cells[column] for cells in rows.cells if not is_missing(cells[column])]
        if column != MASK_COLUMN and values and all(map(is_path, values)):
            names.append(column)
    masks = [name for name in names if fault_of_words(name) == bids.MASK]
    if masks:
        logger.warning("%s: columns of masks are no modalities: %s", rows.file, some(masks))
    return tuple(name for name in names if name not in masks)


def _check_path_columns(rows: Rows, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in rows.columns:
            raise InputError(unknown(f"column of {rows.file}", name, rows.columns))
    if not names:
        raise InputError(
            f"{rows.file} has no column of paths (.nii, .nii.gz, or DICOM folders that end in /); "
            "name them: --modalities"
        )
    return names


def _visit(rows: Rows, cells: dict[str, str], modalities: Sequence[str]) -> Row:
    paths = {modality: rows.path(cells, modality) for modality in modalities}
    return Row(
        subject=rows.subject(cells),
        session=rows.session(cells, [SESSION_COLUMN]),  # a column `session` may be a target
        split=_split(cells),
        volumes={modality: path for modality, path in paths.items() if path is not None},
        mask=rows.path(cells, MASK_COLUMN),
        values=cells,
    )


def _split(cells: dict[str, str]) -> str:
    split = cells.get(SPLIT_COLUMN, "")
    return "" if is_missing(split) else split


def _bids_visits(
    rows: Rows, modalities: Sequence[str] | None, prefer: bids.Preferences
) -> list[Row]:
    """Return one row per session of a participant, with the image of every sequence."""
    participants = [rows.subject(cells) for cells in rows.cells]
    wanted = None if modalities is None else _sequences(modalities)
    found = find_visits(rows.file, participants, wanted, prefer)
    return [
        Row(
            visit.subject,
            visit.session,
            _split(cells),
            visit.volumes,
            values=cells,
        )
        for cells, visits in zip(rows.cells, found, strict=True)
        for visit in visits
    ]


def _sequences(names: Sequence[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of sequences as `sequences.SPELLINGS` has them: `T1w` gives T1."""
    found = [name if name in known else canonical_sequence(name) or name for name in names]
    return tuple(dict.fromkeys(found))


def _check(file: Path, rows: Sequence[Row]) -> None:
    names = [row.name for row in rows]
    duplicates = []
    if len(set(names)) < len(names):
        duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise InputError(
            f"{file} names {some(duplicates)} twice; "
            f"allowed: one row per visit (column {SESSION_COLUMNS[0]})"
        )
    _check_splits(file, rows)
    if not any(row.volumes for row in rows):
        raise InputError(f"{file}: no row has a volume")


def _check_splits(file: Path, rows: Sequence[Row]) -> None:
    unknown_splits = sorted({row.split for row in rows} - {*SPLITS, ""})
    if unknown_splits:
        raise InputError(
            f"{file}: unknown split {some(unknown_splits)}; "
            f"allowed: {', '.join(SPLITS)}, or nothing"
        )
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.subject, set()).add(row.split)
    divided = sorted(subject for subject, names in splits.items() if len(names) > 1)
    if divided:
        raise InputError(
            f"{file} has {len(divided)} subjects in two splits: {some(divided)}; "
            "splits are by subject"
        )
