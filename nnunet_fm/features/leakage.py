"""Whether an encoder, or a head, has seen whom it is tested on: by name, by bytes, by voxels, by features."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from nnunet_fm.data.subject_ids import cross_references, may_match, subject_name
from nnunet_fm.data.subject_table import DATASET_COLUMN, Row, Table, is_path, read_subject_list
from nnunet_fm.features.content_hashes import InputHashes
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some

NEAR = 0.98


@dataclass(frozen=True)
class Overlap:
    """Somebody who is tested and was seen: how it shows, and under which name."""

    tested: str
    seen: str
    shown_by: str


@dataclass(frozen=True)
class Seen:
    """Whom an encoder was pretrained on, or a head trained.

    Attributes:
        names: by the id alone: each `subject_name`, and how the list spells it.
        files, voxels: spelling by SHA-256 of the input's bytes, and of its voxels.
    """

    names: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    voxels: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, spelling: str) -> None:
        """Somebody, by `subject_name`."""
        self.names.setdefault(name.rpartition("/")[2], {}).setdefault(name, spelling)

    def who(self, name: str) -> str | None:
        """Spelling of somebody who may be `name`; None if there is nobody."""
        alike = self.names.get(name.rpartition("/")[2], {})
        return next((spelling for other, spelling in alike.items() if may_match(name, other)), None)


def read_seen(manifest: Path, hashes: InputHashes) -> Seen:
    """Whom an encoder saw.

    Args:
        manifest: a slice store of `nnunet-fm pretrain prepare` or its `manifest*.jsonl`; a CSV or
            TSV with `subject_id` and perhaps `dataset` and columns of paths; or a text file with
            one id a line.
        hashes: of input files.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or no subject in it.
    """
    files = sorted(manifest.glob("manifest*.jsonl")) if manifest.is_dir() else [manifest]
    if not files or not files[0].is_file():
        raise MissingFileError(
            f"{manifest} is no manifest; give a slice store, its manifest.jsonl, or a CSV of subjects"
        )
    seen = Seen()
    if files[0].suffix == ".jsonl":
        for record in (
            json.loads(line) for file in files for line in file.read_text().splitlines()
        ):
            name = f"{record['dataset']}/{record['subject']}"
            seen.add(subject_name(record["subject"], record["dataset"]), name)
            seen.files[record["source_sha256"]] = name
            if record.get("voxels_sha256"):
                seen.voxels[record["voxels_sha256"]] = name
    else:
        _read_list(files[0], seen, hashes)
    if not seen.names:
        raise InputError(f"{manifest} names no subject")
    return seen


def _read_list(file: Path, seen: Seen, hashes: InputHashes) -> None:
    rows = read_subject_list(file)
    for cells in rows.cells:
        spelling = rows.subject(cells)
        dataset, _, subject = spelling.rpartition("/")
        dataset = cells.get(DATASET_COLUMN) or dataset
        for name in sorted({subject_name(subject, dataset)} | cross_references(cells.values())):
            seen.add(name, spelling)
        for column, text in cells.items():
            path = rows.path(cells, column)
            if path is not None and is_path(text) and path.exists():
                seen.files.setdefault(hashes.sha256(path), spelling)


def _names(subject: str, cells: Mapping[str, str]) -> list[str]:
    """Return the canonical name of a row's subject, and names of other collections in its cells."""
    name = subject_name(subject, cells.get(DATASET_COLUMN, ""))
    return sorted({name} | cross_references(cells.values()))


def find_overlaps(
    rows: Sequence[Row], seen: Seen, hashes: InputHashes, voxels: bool = False
) -> list[Overlap]:
    """Tested rows whose subject or volumes were seen, once each way.

    Args:
        rows: that are tested.
        seen: see `read_seen`.
        hashes: of input files.
        voxels: also read every volume and compare its voxels: finds copies with another header,
            compression or type.
    """
    found: dict[Overlap, None] = {}
    for row in tqdm(rows, desc="leakage", unit="visit", disable=not voxels):
        for spelling in filter(None, map(seen.who, _names(row.subject, row.values))):
            found[Overlap(row.name, spelling, "subject")] = None
        for path in filter(Path.exists, row.volumes.values()):
            if name := seen.files.get(hashes.sha256(path)):
                found[Overlap(row.name, name, "bytes")] = None
            elif voxels and seen.voxels and (name := seen.voxels.get(hashes.voxels(path))):
                found[Overlap(row.name, name, "voxels")] = None
    return list(found)


def overlaps_within(table: Table, hashes: InputHashes, voxels: bool = False) -> list[Overlap]:
    """Tested rows of a table that are also among its training rows under another name.

    Without a column `split` every row is tested once: two subjects that are one may come to lie in
    two folds.
    """
    seen, found = Seen(), []
    if any(row.split == "test" for row in table.rows):
        for row in table.rows:
            if row.split in ("train", "val"):
                _add_row(seen, row, hashes, voxels)
        return find_overlaps(table.test_rows, seen, hashes, voxels)
    for row in table.rows:
        found += [
            o
            for o in find_overlaps([row], seen, hashes, voxels)
            if o.seen.split("/")[0] != row.subject
        ]
        _add_row(seen, row, hashes, voxels)
    return found


def all_overlaps(
    table: Table, pretrain: Path | None, hashes: InputHashes, voxels: bool = False
) -> list[Overlap]:
    """Tested rows that are among the table's training rows, or in a pretraining manifest.

    Raises:
        FileNotFoundError, ValueError: see `read_seen`.
    """
    found = overlaps_within(table, hashes, voxels)
    if pretrain:
        found += find_overlaps(table.test_rows, read_seen(pretrain, hashes), hashes, voxels)
    hashes.save()
    return found


def _add_row(seen: Seen, row: Row, hashes: InputHashes, voxels: bool) -> None:
    for name in _names(row.subject, row.values):
        seen.add(name, row.name)
    for path in filter(Path.exists, row.volumes.values()):
        seen.files.setdefault(hashes.sha256(path), row.name)
        if voxels and (digest := hashes.voxels(path)):
            seen.voxels.setdefault(digest, row.name)


def near_duplicates(
    names: Sequence[str],
    x: Float[np.ndarray, "n d"],
    tested: Sequence[bool],
    near: float = NEAR,
) -> list[Overlap]:
    """Tested cases whose features lie almost in the direction of a training case's, seen from the mean of all.

    For eyes: siblings and repeated visits lie near each other too.

    Args:
        names: of the cases.
        x: features.
        tested: which cases are tested; where all are (cross-validation), all pairs are compared.
        near: cosine from which on two are told, after the mean was taken away (pooled features
            share most of it).
    """
    side = np.array(tested, bool)
    apart = (
        np.triu(np.ones((len(side),) * 2, bool), 1) if side.all() else side[:, None] & ~side[None]
    )
    centred = x - x.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    return [
        Overlap(names[a], names[b], f"features, cosine {similarity[a, b]:.3f}")
        for a, b in zip(*np.nonzero(apart & (similarity >= near)), strict=True)
    ]


def refuse(overlaps: Sequence[Overlap], allowed: bool) -> str:
    """What to write beside results where overlap is allowed; empty without overlap.

    Raises:
        ValueError: there is overlap and it is not allowed.
    """
    if not overlaps:
        return ""
    tested = list(dict.fromkeys(o.tested for o in overlaps))
    told = [f"{o.tested} is {o.seen} ({o.shown_by})" for o in overlaps]
    said = f"{len(tested)} tested cases were seen before: {some(told)}"
    if not allowed:
        raise InputError(
            f"{said}. Take them out of the test, or say --allow-leakage: it will stand beside every result"
        )
    return said
