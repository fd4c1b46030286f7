"""Detect test subjects seen in training or pretraining.

They are found by subject id, file hash, voxel hash or feature similarity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from nnunet_fm.data.subject_ids import SubjectNames, cross_references, subject_name
from nnunet_fm.data.subject_table import Row, Table
from nnunet_fm.data.table_rows import is_path, name_in_dataset, read_subject_list
from nnunet_fm.features.cache import FeatureCache
from nnunet_fm.features.content_hashes import InputHashes
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.json_files import parse_json, read_utf8
from nnunet_fm.internal.messages import some

NEAR_COSINE = 0.98


@dataclass(frozen=True)
class Overlap:
    """A test case that was seen before.

    Attributes:
        test_case: name of the test case.
        match: id of the subject or case that it matches.
        evidence: `subject`, `bytes`, `voxels`, or the cosine similarity of the features.
    """

    test_case: str
    match: str
    evidence: str


@dataclass(frozen=True)
class Seen:
    """Subjects and volumes that an encoder or a head was trained on.

    Attributes:
        names: the subjects, each with its id as the list spells it.
        files: id of a listed subject, by the SHA-256 of an input file.
        voxels: id of a listed subject, by the SHA-256 of a volume's voxels.
    """

    names: SubjectNames = field(default_factory=SubjectNames)
    files: dict[str, str] = field(default_factory=dict)
    voxels: dict[str, str] = field(default_factory=dict)


def read_seen(manifest: Path, hashes: InputHashes) -> Seen:
    """Read the subjects that an encoder was pretrained on.

    Args:
        manifest: a slice store of `nnunet-fm pretrain prepare` or its `manifest*.jsonl`; a CSV or
            TSV with `subject_id` and optionally `dataset` and columns of paths; or a text file with
            one subject id per line.
        hashes: hashes of input files.

    Raises:
        FileNotFoundError: the manifest does not exist.
        ValueError: the manifest names no subject.
    """
    files = sorted(manifest.glob("manifest*.jsonl")) if manifest.is_dir() else [manifest]
    if not files or not files[0].is_file():
        raise MissingFileError(
            f"{manifest} is not a manifest; give a slice store, its manifest.jsonl, "
            "or a CSV of subjects"
        )
    seen = Seen()
    if files[0].suffix == ".jsonl":
        for file in files:
            _add_manifest(file, seen)
    else:
        _add_subject_list(files[0], seen, hashes)
    if not seen.names:
        raise InputError(f"{manifest} names no subject")
    return seen


def find_overlaps(
    rows: Sequence[Row], seen: Seen, hashes: InputHashes, voxels: bool = False
) -> list[Overlap]:
    """Find test rows whose subject or volumes were seen; one result per row, match and evidence.

    Args:
        rows: test rows.
        seen: see `read_seen`.
        hashes: hashes of input files.
        voxels: also read every volume and compare its voxels, which finds copies with another
            header, compression or number type.
    """
    overlaps: dict[Overlap, None] = {}  # a set that keeps the order
    for row in tqdm(rows, desc="leakage", unit="visit", disable=not voxels):
        for name in _row_names(row):
            match = seen.names.find(name)
            if match:
                overlaps[Overlap(row.name, match, "subject")] = None
        for path in filter(Path.exists, row.volumes.values()):
            match = seen.files.get(hashes.sha256(path))
            if match:
                overlaps[Overlap(row.name, match, "bytes")] = None
            elif voxels and seen.voxels:
                match = seen.voxels.get(hashes.voxels(path))
                if match:
                    overlaps[Overlap(row.name, match, "voxels")] = None
    return list(overlaps)


def overlaps_within(table: Table, hashes: InputHashes, voxels: bool = False) -> list[Overlap]:
    """Find test rows of a table that are also among its training rows, under another name.

    Without a column `split` every row is tested in cross-validation. Then all pairs of subjects
    are compared, since they may be in different folds.
    """
    seen = Seen()
    if any(row.split == "test" for row in table.rows):
        for row in table.rows:
            if row.split in ("train", "val"):
                _add_row(seen, row, hashes, voxels)
        return find_overlaps(table.test_rows, seen, hashes, voxels)
    overlaps = []
    for row in table.rows:
        for overlap in find_overlaps([row], seen, hashes, voxels):
            if overlap.match.split("/")[0] != row.subject:
                overlaps.append(overlap)
        _add_row(seen, row, hashes, voxels)
    return overlaps


def all_overlaps(
    table: Table,
    pretrain: Path | None,
    hashes: InputHashes,
    voxels: bool = False,
    allow_no_match: bool = False,
) -> list[Overlap]:
    """Find test rows that are among the table's training rows, or in a pretraining manifest.

    Args:
        table: table of subjects.
        pretrain: subjects that the encoder was pretrained on, see `read_seen`.
        hashes: hashes of input files.
        voxels: see `find_overlaps`.
        allow_no_match: accept a manifest whose ids are written in another form than the table's.

    Raises:
        FileNotFoundError, ValueError: see `read_seen`.
        ValueError: nothing matches, and no id of the manifest has the form of a tested id.
    """
    seen = read_seen(pretrain, hashes) if pretrain else None
    overlaps = overlaps_within(table, hashes, voxels)
    found = find_overlaps(table.test_rows, seen, hashes, voxels) if seen else []
    hashes.save()
    if pretrain and seen and not found and not allow_no_match:
        _require_one_form(seen, pretrain, table)
    return overlaps + found


def _require_one_form(seen: Seen, manifest: Path, table: Table) -> None:
    """Refuse ids that match nothing because they are written differently."""
    names = [name for row in table.test_rows for name in _row_names(row)]
    if seen.names.comparable(names):
        return
    listed = [spelling for _, spelling in seen.names]
    tested = [row.subject for row in table.test_rows]
    raise InputError(
        f"no id in {manifest} ({some(listed)}) is written like a subject of {table.file} that is "
        f"tested ({some(tested)}), so they cannot be compared. Spell the ids as in the table, or "
        "add --allow-no-match if the subjects are others"
    )


def near_duplicates(
    names: Sequence[str],
    x: Float[np.ndarray, "n d"],
    tested: Sequence[bool],
    near: float = NEAR_COSINE,
) -> list[Overlap]:
    """Find test cases whose features are almost parallel to those of a training case.

    The result is for inspection: siblings and repeated visits are similar too.

    Args:
        names: names of the cases.
        x: features.
        tested: which cases are tested; if all are (cross-validation), all pairs are compared.
        near: report pairs whose mean-centred cosine similarity is at least this, -1 to 1. The mean
            is subtracted because pooled features share most of it.
    """
    is_test = np.array(tested, bool)
    if is_test.all():
        compared = np.triu(np.ones((len(is_test), len(is_test)), bool), 1)
    else:
        compared = is_test[:, None] & ~is_test[None]
    centred = x - x.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    pairs = zip(*np.nonzero(compared & (similarity >= near)), strict=True)
    return [
        Overlap(names[a], names[b], f"features, cosine {similarity[a, b]:.3f}") for a, b in pairs
    ]


def near_duplicates_of(
    table: Table, cache: FeatureCache, near: float = NEAR_COSINE, encoder: str | None = None
) -> list[Overlap]:
    """Find near duplicates among the cached features of a table, see `near_duplicates`.

    Args:
        table: subjects and their volumes.
        cache: cache with the features of all of them.
        near: smallest mean-centred cosine similarity to report, -1 to 1.
        encoder: name or hash of the encoder; may be None if the cache holds one.
    """
    names, x = cache.matrix(table, encoder=encoder)
    tested = {row.name for row in table.test_rows}
    return near_duplicates(names, x, [name in tested for name in names], near)


def raise_or_describe(overlaps: Sequence[Overlap], allowed: bool) -> str:
    """Refuse leakage, or describe it where it is allowed.

    Returns:
        The note to record with the results; empty without overlap.

    Raises:
        ValueError: there is an overlap and it is not allowed.
    """
    if not overlaps:
        return ""
    test_cases = {overlap.test_case for overlap in overlaps}
    matches = [f"{o.test_case} is {o.match} ({o.evidence})" for o in overlaps]
    # part of the identity of a head's run: rewording it would run finished tasks again
    description = f"{len(test_cases)} tested cases were seen before: {some(matches)}"
    if not allowed:
        raise InputError(
            f"{description}. Remove them from the test split, or add --allow-leakage to record "
            "this in every result"
        )
    return description


def _add_manifest(file: Path, seen: Seen) -> None:
    """Add the records of a slice store's manifest."""
    for number, line in enumerate(read_utf8(file).splitlines(), 1):
        try:
            record = parse_json(line, str(file))
            subject, dataset = record["subject"], record["dataset"]
            source = record["source_sha256"]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{file}, line {number} is no record of `nnunet-fm pretrain prepare`; give a slice "
                "store, its manifest.jsonl, or a CSV of subjects"
            ) from None
        spelling = f"{dataset}/{subject}"
        seen.names.add(subject_name(subject, dataset), spelling)
        seen.files[source] = spelling
        if record.get("voxels_sha256"):
            seen.voxels[record["voxels_sha256"]] = spelling


def _add_subject_list(file: Path, seen: Seen, hashes: InputHashes) -> None:
    """Add the subjects of a table or plain list, and the bytes of the volumes that it names."""
    rows = read_subject_list(file)
    for cells in rows.cells:
        spelling = rows.subject(cells)
        for name in _names(spelling, cells):
            seen.names.add(name, spelling)
        for column, text in cells.items():
            path = rows.path(cells, column)
            if path is not None and is_path(text) and path.exists():
                seen.files.setdefault(hashes.sha256(path), spelling)


def _add_row(seen: Seen, row: Row, hashes: InputHashes, voxels: bool) -> None:
    """Add the subject and the volumes of a training row."""
    for name in _row_names(row):
        seen.names.add(name, row.name)
    for path in filter(Path.exists, row.volumes.values()):
        seen.files.setdefault(hashes.sha256(path), row.name)
        digest = hashes.voxels(path) if voxels else ""
        if digest:
            seen.voxels.setdefault(digest, row.name)


def _row_names(row: Row) -> list[str]:
    return _names(row.subject, row.values)


def _names(subject: str, cells: Mapping[str, str]) -> list[str]:
    """Return the canonical name of a subject, and its names in other collections."""
    return sorted({name_in_dataset(subject, cells)} | cross_references(cells.values()))
