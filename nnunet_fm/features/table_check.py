"""What is in a table, and what is wrong with it, before anything long begins."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.data.subject_table import Table
from nnunet_fm.data.volumes import BadVolumeError, read_volume
from nnunet_fm.features.content_hashes import InputHashes
from nnunet_fm.features.leakage import overlaps_within
from nnunet_fm.internal.messages import some


@dataclass(frozen=True)
class Findings:
    """Lines about a table, and lines about what must be mended."""

    about: list[str]
    problems: list[str]


def check_table(table: Table, hashes: InputHashes, read: bool = False) -> Findings:
    """Count subjects, splits and volumes; find volumes that are missing or unreadable, subjects with two names.

    Args:
        table: to look at.
        hashes: of input files.
        read: also read every volume: finds damaged ones, and copies with other bytes.
    """
    splits = Counter(row.split or "no split" for row in table.rows)
    volumes = Counter(m for row in table.rows for m in row.volumes)
    whole = sum(len(row.volumes) == len(table.modalities) for row in table.rows)
    about = [
        f"{len(table.rows)} rows, {len({r.subject for r in table.rows})} subjects",
        "splits: " + ", ".join(f"{name} {count}" for name, count in sorted(splits.items())),
        "volumes: " + ", ".join(f"{m} {volumes[m]}" for m in table.modalities),
        f"rows with all {len(table.modalities)} modalities: {whole}",
    ]
    paths = [(row, m, path) for row in table.rows for m, path in row.volumes.items()]
    missing = [f"{row.name} {m}: {path}" for row, m, path in paths if not path.exists()]
    problems = [f"{len(missing)} volumes are missing: {some(missing)}"] if missing else []
    masks = [f"{row.name}: {row.mask}" for row in table.rows if row.mask and not row.mask.exists()]
    problems += [f"{len(masks)} masks are missing: {some(masks)}"] if masks else []
    if read:
        damaged = [
            f"{row.name} {m}: {reason}" for row, m, path in paths if (reason := _reason(path))
        ]
        problems += [f"{len(damaged)} volumes cannot be used: {some(damaged)}"] if damaged else []
    twins = [f"{o.tested} is {o.seen} ({o.shown_by})" for o in overlaps_within(table, hashes, read)]
    problems += [f"{len(twins)} subjects come under two names: {some(twins)}"] if twins else []
    hashes.save()
    return Findings(about, problems)


def _reason(path: Path) -> str:
    """Why a volume cannot be used; empty if it can, or is missing."""
    try:
        if path.exists():
            read_volume(path)
    except BadVolumeError as error:
        return str(error)
    return ""
