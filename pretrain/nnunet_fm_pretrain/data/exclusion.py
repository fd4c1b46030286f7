"""Lists of subjects to exclude."""

from collections.abc import Sequence
from pathlib import Path

from nnunet_fm.data.subject_ids import SubjectNames, cross_references, subject_name
from nnunet_fm.data.table_rows import DATASET_COLUMN, is_missing, read_subject_list
from nnunet_fm_pretrain.data.source import Source


def read_subjects(path: Path) -> list[str]:
    """Read subject ids, `ID` or `DATASET/ID`, from a table or a plain list.

    The column `dataset` of a table counts like `DATASET/`. Ids of the same patients in other
    collections, e.g. in a column `BraTS21 ID`, are read, too.

    Raises:
        FileNotFoundError, ValueError: see `read_subject_list`.
    """
    rows = read_subject_list(path)
    ids = []
    for cells in rows.cells:
        subject = rows.subject(cells)
        own = {subject_name(subject)}
        dataset = cells.get(DATASET_COLUMN, "")
        if "/" not in subject and not is_missing(dataset):
            subject = f"{dataset}/{subject}"
        ids += [subject, *(text for text in cells.values() if cross_references([text]) - own)]
    return ids


def without_subjects(
    sources: Sequence[Source], excluded: Sequence[str]
) -> tuple[list[Source], list[str]]:
    """Remove the sources of excluded subjects (`ID` or `DATASET/ID`), however an id is spelled.

    Returns:
        The other sources, and the excluded ids that match no source.
    """
    names = [subject_name(source.subject, source.dataset) for source in sources]
    listed = SubjectNames(excluded)
    present = SubjectNames()
    for name in names:
        present.add(name, name)
    kept = [s for s, name in zip(sources, names, strict=True) if listed.find(name) is None]
    unmatched = [subject for subject in excluded if present.find(subject_name(subject)) is None]
    return kept, sorted(set(unmatched))
