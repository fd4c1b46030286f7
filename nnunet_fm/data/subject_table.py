"""Read tables of subjects: CSV, TSV, BIDS `participants.tsv`, and plain lists of subject ids.

Every part of the program that reads a table of subjects reads it here:

* `read_rows` gives the cells of any delimited table as text;
* `read_table` gives visits with their image paths and splits, for features and heads;
* `read_subject_list` gives subject ids from a table or a text file with one id per line.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_fm.data import bids
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some, unknown

ID_COLUMNS = ("subject_id", "participant_id")
SESSION_COLUMNS = ("session_id", "session")  # `session` is the older spelling
DATASET_COLUMN, SPLIT_COLUMN, MASK_COLUMN = "dataset", "split", "mask"
SPLITS = ("train", "val", "test")
MISSING = ("", "n/a", "na", "nan")
SEPARATORS = "\t,;"
COMMENT = "#"


@dataclass(frozen=True)
class Rows:
    """The cells of a delimited table, as text without surrounding spaces.

    Attributes:
        file: the table; relative paths in its cells start at its folder.
        columns: names of the columns, in their order.
        cells: one dictionary per row, from column name to text.
        lines: line number of each row in the file, counted from 1.

    Example:
        >>> rows = read_rows(Path("scans.csv"))
        >>> rows.require("subject_id", "path")
        >>> [(rows.subject(cells), rows.path(cells, "path")) for cells in rows.cells]
    """

    file: Path
    columns: tuple[str, ...]
    cells: list[dict[str, str]]
    lines: list[int]

    @property
    def id_column(self) -> str:
        """The column of subject ids: `subject_id` or `participant_id`.

        Raises:
            ValueError: the table has neither.
        """
        for column in ID_COLUMNS:
            if column in self.columns:
                return column
        raise InputError(
            f"{self.file} has no column {' or '.join(ID_COLUMNS)}; it has: {some(self.columns, 10)}"
        )

    def numbered(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Iterate over line numbers and cells."""
        return zip(self.lines, self.cells, strict=True)

    def require(self, *columns: str) -> None:
        """Check that the table has these columns.

        Raises:
            ValueError: the table lacks some of them.
        """
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise InputError(
                f"{self.file} lacks the columns {', '.join(missing)}; "
                f"it has: {some(self.columns, 10)}"
            )

    def subject(self, cells: Mapping[str, str]) -> str:
        """Return the subject id of a row, as the table spells it."""
        return cells[self.id_column]

    def session(self, cells: Mapping[str, str]) -> str:
        """Return the session of a row; empty if the table has none."""
        column = next((c for c in SESSION_COLUMNS if c in self.columns), None)
        return "" if column is None or is_missing(cells[column]) else cells[column]

    def path(self, cells: Mapping[str, str], column: str) -> Path | None:
        """Return the path in a cell, relative paths below the table's folder; None if missing."""
        text = cells.get(column, "")
        return None if is_missing(text) else self.file.parent / text


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
        if lacking := sorted(set(requested) - set(self.modalities)):
            raise InputError(
                f"unknown modality {some(lacking)}; the table has {', '.join(self.modalities)}"
            )
        return requested

    @property
    def test_rows(self) -> list[Row]:
        """Rows of the split `test`; all rows if there is none (cross-validation)."""
        return [row for row in self.rows if row.split == "test"] or self.rows


def is_missing(text: str) -> bool:
    """Return whether a cell stands for a missing value: empty, `n/a`, `na` or `nan`."""
    return text.strip().lower() in MISSING


def is_path(text: str) -> bool:
    """Return whether a cell names a NIfTI file or, ending in a slash, a DICOM folder."""
    return text.lower().endswith((".nii", ".nii.gz")) or text.endswith("/")


def read_rows(file: Path) -> Rows:
    """Read a delimited table as text.

    The separator is the first of tab, comma and semicolon that the header contains. A byte-order
    mark, empty lines, and comment lines (`#`) before the header are skipped.

    Args:
        file: CSV or TSV in UTF-8 with a header.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not UTF-8 text.
    """
    return _parse(file, _read_lines(file, "a CSV or TSV with subject_id and a column of paths"))


def read_subject_list(file: Path) -> Rows:
    """Read subject ids from a table, or from a text file with one id per line.

    Args:
        file: CSV or TSV with a column `subject_id` or `participant_id`; or plain text with one id
            per line. An id may be written `DATASET/ID`; `#` starts a comment.

    Returns:
        Rows that have an id; those of plain text have the single column `subject_id`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a table without an id column, or no id in the file.
    """
    lines = _read_lines(file, "a file with one subject id per line")
    header = next((line for line in map(_without_comment, lines) if line), "")
    if header in ID_COLUMNS or any(separator in header for separator in SEPARATORS):
        rows = _parse(file, lines)
    else:
        ids = [{ID_COLUMNS[0]: line} for line in lines]
        rows = Rows(file, ID_COLUMNS[:1], ids, list(range(1, len(lines) + 1)))
    named = []
    for line, cells in rows.numbered():
        subject = _without_comment(rows.subject(cells))
        if subject:
            named.append((line, {**cells, rows.id_column: subject}))
    if not named:
        raise InputError(f"{file} names no subject; give one subject id per line")
    return Rows(file, rows.columns, [cells for _, cells in named], [line for line, _ in named])


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
    nameless = [str(line) for line, cells in rows.numbered() if not cells[id_column]]
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


def _read_lines(file: Path, expected: str) -> list[str]:
    if not file.is_file():
        raise MissingFileError(f"{file} does not exist; give {expected}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            return stream.readlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text ({error}); save it as UTF-8") from error


def _without_comment(line: str) -> str:
    return line.split(COMMENT)[0].strip()


def _parse(file: Path, lines: Sequence[str]) -> Rows:
    """Split lines into cells; the first line that is not empty or a comment is the header."""
    start = next((n for n, line in enumerate(lines) if _without_comment(line)), len(lines))
    header = lines[start] if start < len(lines) else ""
    separator = next((s for s in SEPARATORS if s in header), ",")
    reader = csv.DictReader(lines[start:], delimiter=separator)
    columns = tuple(reader.fieldnames or ())
    cells, numbers = [], []
    for row in reader:
        cells.append({column: (row[column] or "").strip() for column in columns})
        numbers.append(start + reader.line_num)
    return Rows(file, columns, cells, numbers)


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
        session=rows.session(cells),
        split=cells.get(SPLIT_COLUMN, ""),
        volumes={modality: path for modality, path in paths.items() if path is not None},
        mask=rows.path(cells, MASK_COLUMN),
        values=cells,
    )


def _bids_visits(
    root: Path, cells: dict[str, str], id_column: str, modalities: Sequence[str] | None
) -> list[Row]:
    """Return one visit per session of a subject, each with the first image of every sequence."""
    subject, split = bids.subject_id(cells[id_column]), cells.get(SPLIT_COLUMN, "")
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
