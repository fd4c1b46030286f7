"""Tables of subjects: visits with their images, splits and targets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_fm.data import bids
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


def read_table(file: Path | str, modalities: Sequence[str] | None = None) -> Table:
    """Read visits from a CSV or TSV, or from the `participants.tsv` of a BIDS dataset.

    Args:
        file: table with `subject_id` (or `participant_id`); optional columns are `session_id`,
            `split`, `mask`, targets, and one column of paths per modality, absolute or relative
            to the file. A BIDS table has no columns of paths: images are found by their names.
        modalities: columns that hold paths (BIDS: names such as T1 and FLAIR); recognised by
            their content if None.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: no id column, no volume, a subject in two splits, a duplicate visit, an unknown
            modality or split.
    """
    file = Path(file)
    rows = read_rows(file)
    id_column = rows.id_column
    if not rows.cells:
        raise InputError(f"{file} has no rows")
    nameless = [str(line) for line, cells in rows.numbered() if not rows.subject(cells)]
    if nameless:
        raise InputError(f"{file}: no subject in line {some(nameless)}")
    path_columns = _path_columns(rows)
    if path_columns or file.name != bids.PARTICIPANTS:
        selected = _check_path_columns(rows, tuple(modalities or path_columns))
        visits = [_visit(rows, cells, selected) for cells in rows.cells]
    else:
        visits = []
        for cells in rows.cells:
            visits += _bids_visits(file.parent, cells, id_column, modalities)
        selected = tuple(sorted({name for visit in visits for name in visit.volumes}))
    _check(file, visits)
    return Table(file, visits, selected, rows.columns)


def _path_columns(rows: Rows) -> tuple[str, ...]:
    """Return the columns whose every value, if not missing, is a path."""
    names = []
    for column in rows.columns:
        values = [cells[column] for cells in rows.cells if not is_missing(cells[column])]
        if column != MASK_COLUMN and values and all(map(is_path, values)):
            names.append(column)
    return tuple(names)


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
    root: Path, cells: dict[str, str], id_column: str, modalities: Sequence[str] | None
) -> list[Row]:
    """Return one visit per session of a subject, each with the first image of every sequence."""
    subject = bids.subject_id(cells[id_column])
    split = _split(cells)
    sessions: dict[str, dict[str, Path]] = {}
    for image in bids.find_images(root, subject):
        sequence = image.sequence
        is_requested = modalities is None or sequence in modalities
        if sequence and is_requested and "mask" not in image.path.name:
            sessions.setdefault(image.session, {}).setdefault(sequence, image.path)
    if not sessions:
        return [Row(subject, "", split, {}, values=cells)]
    return [Row(subject, session, split, v, values=cells) for session, v in sessions.items()]


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
