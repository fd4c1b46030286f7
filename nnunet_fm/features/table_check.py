"""Check a table of subjects and its volumes before long work starts."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.data.subject_table import Table
from nnunet_fm.data.volumes import BadVolumeError, read_volume
from nnunet_fm.features.content_hashes import InputHashes
from nnunet_fm.features.leakage import overlaps_within
from nnunet_fm.internal.messages import counted, some


@dataclass(frozen=True)
class TableReport:
    """Counts of a table, and the problems to fix, one line each."""

    summary: list[str]
    problems: list[str]


def check_table(table: Table, hashes: InputHashes, read: bool = False) -> TableReport:
    """Count subjects, splits and volumes; find missing volumes and subjects with two names.

    Args:
        table: table to check.
        hashes: hashes of input files.
        read: also read every volume, which finds damaged volumes and copies with other bytes.
    """
    problems = _missing_files(table)
    if read:
        problems += _unusable_volumes(table)
    twins = [
        f"{o.test_case} is {o.match} ({o.evidence})" for o in overlaps_within(table, hashes, read)
    ]
    if twins:
        problems.append(f"{counted(len(twins), 'subject')} with two names: {some(twins)}")
    hashes.save()
    return TableReport(_summary(table), problems)


def _summary(table: Table) -> list[str]:
    splits = Counter(row.split or "no split" for row in table.rows)
    volumes = Counter(modality for row in table.rows for modality in row.volumes)
    complete = sum(len(row.volumes) == len(table.modalities) for row in table.rows)
    subjects = {row.subject for row in table.rows}
    return [
        f"{counted(len(table.rows), 'row')}, {counted(len(subjects), 'subject')}",
        "splits: " + ", ".join(f"{name} {count}" for name, count in sorted(splits.items())),
        "volumes: " + ", ".join(f"{name} {volumes[name]}" for name in table.modalities),
        f"rows with all {len(table.modalities)} modalities: {complete}",
    ]


def _missing_files(table: Table) -> list[str]:
    volumes, masks = [], []
    for row in table.rows:
        for modality, path in row.volumes.items():
            if not path.exists():
                volumes.append(f"{row.name} {modality}: {path}")
        if row.mask and not row.mask.exists():
            masks.append(f"{row.name}: {row.mask}")
    problems = [f"{counted(len(volumes), 'missing volume')}: {some(volumes)}"] if volumes else []
    if masks:
        problems.append(f"{counted(len(masks), 'missing mask')}: {some(masks)}")
    return problems


def _unusable_volumes(table: Table) -> list[str]:
    reasons = []
    for row in table.rows:
        for modality, path in row.volumes.items():
            reason = _problem(path)
            if reason:
                reasons.append(f"{row.name} {modality}: {reason}")
    return [f"{counted(len(reasons), 'unusable volume')}: {some(reasons)}"] if reasons else []


def _problem(path: Path) -> str:
    """Return why a volume cannot be used; empty if it can, or does not exist."""
    try:
        if path.exists():
            read_volume(path)
    except BadVolumeError as error:
        return str(error)
    return ""
