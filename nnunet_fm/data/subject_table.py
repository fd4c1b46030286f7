"""Tables of subjects: who, which volumes, which targets."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_fm.data.sequences import sequence_in
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some, unknown

ID_COLUMNS = ("subject_id", "participant_id")
SESSION_COLUMN, SPLIT_COLUMN, MASK_COLUMN = "session_id", "split", "mask"
SPLITS = ("train", "val", "test")
MISSING = ("", "n/a", "na", "nan")
BIDS = "participants.tsv"


@dataclass(frozen=True)
class Row:
    """One visit of a subject.

    Attributes:
        subject: groups what must not be torn apart by a split.
        session: visit; may be empty.
        split: `train`, `val`, `test`, or empty.
        volumes: path of each modality that is there.
        mask: brain mask, if given.
        values: all columns as they stand.
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
    """Rows in the order of the file, and the names of the modalities and of all columns."""

    file: Path
    rows: list[Row]
    modalities: tuple[str, ...]
    columns: tuple[str, ...]

    def chosen(self, modalities: Sequence[str] | None) -> tuple[str, ...]:
        """The asked modalities; all of the table's if None.

        Raises:
            ValueError: one that the table does not have.
        """
        asked = tuple(modalities or self.modalities)
        if strange := sorted(set(asked) - set(self.modalities)):
            raise InputError(
                f"unknown modality {some(strange)}; the table has {', '.join(self.modalities)}"
            )
        return asked

    @property
    def tested(self) -> list[Row]:
        """Rows of the split `test`; all of them where there is none (cross-validation)."""
        return [row for row in self.rows if row.split == "test"] or self.rows


def read_table(file: Path, modalities: Sequence[str] | None = None) -> Table:
    """Read a CSV or TSV, or the `participants.tsv` of a BIDS dataset.

    Args:
        file: with `subject_id` (or `participant_id`), perhaps `session_id`, `split`, `mask`,
            targets, and a column of paths per modality, absolute or relative to the file. A BIDS
            table has no such columns: the images are found by their names.
        modalities: columns that hold paths (BIDS: names such as T1 and FLAIR); found by their
            content if None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no id column, no volume, a subject in two splits, a visit twice, an unknown
            modality or split.
    """
    if not file.is_file():
        raise MissingFileError(
            f"{file} does not exist; give a CSV or TSV with subject_id and a column of paths"
        )
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ",")
        columns = tuple(reader.fieldnames or ())
        lines = [{k: (v or "").strip() for k, v in line.items() if k} for line in reader]
    id_column = next((c for c in ID_COLUMNS if c in columns), None)
    if id_column is None:
        raise InputError(
            f"{file} has no column {' or '.join(ID_COLUMNS)}; it has: {some(columns, 10)}"
        )
    if not lines:
        raise InputError(f"{file} has no rows")
    found = _path_columns(columns, lines)
    if found or file.name != BIDS:
        chosen = _chosen(file, tuple(modalities or found), columns)
        rows = [_row(file, line, id_column, chosen) for line in lines]
    else:
        rows = [
            row for line in lines for row in _bids_rows(file.parent, line, id_column, modalities)
        ]
        chosen = tuple(sorted({m for row in rows for m in row.volumes}))
    _check(file, rows)
    return Table(file, rows, chosen, columns)


def is_path(text: str) -> bool:
    """Whether a table's value names a NIfTI file or, below a slash, a DICOM folder."""
    return text.lower().endswith((".nii", ".nii.gz")) or text.endswith("/")


def _path_columns(columns: Sequence[str], lines: Sequence[dict[str, str]]) -> tuple[str, ...]:
    """Columns of which every value that is there is a path."""

    def holds_paths(column: str) -> bool:
        values = [line[column] for line in lines if line[column].lower() not in MISSING]
        return bool(values) and all(is_path(v) for v in values)

    return tuple(c for c in columns if c != MASK_COLUMN and holds_paths(c))


def _chosen(file: Path, asked: tuple[str, ...], columns: Sequence[str]) -> tuple[str, ...]:
    for name in asked:
        if name not in columns:
            raise InputError(unknown(f"column of {file}", name, columns))
    if not asked:
        raise InputError(
            f"{file} has no column of paths (.nii, .nii.gz, or DICOM folders that end in /); name them: --modalities"
        )
    return asked


def _row(file: Path, line: dict[str, str], id_column: str, modalities: Sequence[str]) -> Row:
    there = {m: line[m] for m in modalities if line[m].lower() not in MISSING}
    mask = line.get(MASK_COLUMN, "")
    return Row(
        subject=line[id_column],
        session=line.get(SESSION_COLUMN, ""),
        split=line.get(SPLIT_COLUMN, ""),
        volumes={m: file.parent / p for m, p in there.items()},  # an absolute path stays as it is
        mask=None if mask.lower() in MISSING else file.parent / mask,
        values=line,
    )


def _bids_rows(
    root: Path, line: dict[str, str], id_column: str, modalities: Sequence[str] | None
) -> list[Row]:
    subject = line[id_column].removeprefix("sub-")
    volumes: dict[str, dict[str, Path]] = {}
    for path in sorted((root / f"sub-{subject}").glob("**/anat/*.nii*")):
        sequence = sequence_in(path.name)
        if sequence and "mask" not in path.name and (modalities is None or sequence in modalities):
            session = next((p.removeprefix("ses-") for p in path.parts if p.startswith("ses-")), "")
            volumes.setdefault(session, {}).setdefault(sequence, path)
    return [
        Row(subject, session, line.get(SPLIT_COLUMN, ""), found, values=line)
        for session, found in volumes.items()
    ] or [Row(subject, "", line.get(SPLIT_COLUMN, ""), {}, values=line)]


def _check(file: Path, rows: Sequence[Row]) -> None:
    nameless = [str(number) for number, row in enumerate(rows, 2) if not row.subject]
    if nameless:
        raise InputError(f"{file}: no subject in line {some(nameless)}")
    names = [row.name for row in rows]
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(
            f"{file} names {some(twice)} twice; allowed: one row a visit (column {SESSION_COLUMN})"
        )
    strange = sorted({row.split for row in rows} - {*SPLITS, ""})
    if strange:
        raise InputError(
            f"{file}: unknown split {some(strange)}; allowed: {', '.join(SPLITS)}, or nothing"
        )
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.subject, set()).add(row.split)
    torn = sorted(subject for subject, found in splits.items() if len(found) > 1)
    if torn:
        raise InputError(
            f"{file} has {len(torn)} subjects in two splits: {some(torn)}; splits are by subject"
        )
    if not any(row.volumes for row in rows):
        raise InputError(f"{file}: no row has a volume")
