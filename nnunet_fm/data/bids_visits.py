"""The visits of the people in a `participants.tsv`: which folder is theirs, which images."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.data import bids
from nnunet_fm.data.subject_ids import without_padding
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BidsVisit:
    """One session of a subject, with its image of each sequence; there may be none.

    Attributes:
        subject: id of the subject's folder, without `sub-`.
        session: without `ses-`; may be empty.
        volumes: image of each sequence.
    """

    subject: str
    session: str
    volumes: dict[str, Path]


def find_visits(
    table: Path,
    participants: Sequence[str],
    modalities: Sequence[str] | None = None,
    prefer: bids.Preferences = (),
) -> list[list[BidsVisit]]:
    """Find the visits of participants in the BIDS dataset around their table.

    Args:
        table: `participants.tsv` of the dataset.
        participants: ids in the table's order, with or without `sub-`.
        modalities: sequences to find; all if None.
        prefer: which of several images of one sequence to take, see `bids.preferred`.

    Returns:
        The visits of each participant; one without images if the participant has none.

    Raises:
        ValueError: no image of a modality; a participant's folder is not found or ambiguous; or a
            visit has several images of a sequence and no preference decides.
    """
    root = table.parent
    folders = match_participants(table, [bids.subject_id(p) for p in participants])
    found: dict[tuple[str, str], dict[str, list[bids.BidsImage]]] = {}
    skipped = []
    there: set[str] = set()
    for image in bids.find_images(root):
        sequence = image.sequence
        if sequence and not image.fault:
            there.add(sequence)
        if image.fault:
            skipped.append((image.fault, image.path))
        elif sequence and (modalities is None or sequence in modalities):
            visit = found.setdefault((image.subject, image.session), {})
            visit.setdefault(sequence, []).append(image)
    if skipped:
        logger.warning("not images: %s", bids.list_faults(skipped))
    lacking = sorted(set(modalities or ()) - there)
    if lacking:
        raise InputError(
            f"no image of {some(lacking)} in {root}; it has {some(sorted(there)) or 'none'}"
        )
    used = set(folders.values())
    visits: dict[str, list[BidsVisit]] = {subject: [] for subject in used}
    several = []
    for (subject, session), images in found.items():
        if subject in visits:
            kept = {s: bids.preferred(images[s], prefer) for s in sorted(images)}
            several += [candidates for candidates in kept.values() if len(candidates) > 1]
            volumes = {sequence: candidates[0].path for sequence, candidates in kept.items()}
            visits[subject].append(BidsVisit(subject, session, volumes))
    if several:
        raise InputError(_describe_several(table, several))
    return [
        visits[folders[person]] or [BidsVisit(folders[person], "", {})]
        for person in (bids.subject_id(p) for p in participants)
    ]


def match_participants(table: Path, people: Sequence[str]) -> dict[str, str]:
    """Return the id of the folder of each participant (both without `sub-`).

    Ids that differ in leading zeros or in case are matched if there is one such folder and one such
    participant. A participant without a folder keeps the id if every folder has its participant.

    Raises:
        ValueError: an ambiguous id; or participants without a folder beside folders without a
            participant, whose images would be lost.
    """
    folders = bids.subjects(table.parent)
    matched = {person: person for person in people if person in folders}
    free = [f for f in folders if f not in matched]
    waiting = list(dict.fromkeys(person for person in people if person not in matched))
    folders_of = _by_plain_id(folders)
    people_of = _by_plain_id(set(people))
    for person in waiting:
        alike = folders_of.get(without_padding(person), [])
        others = people_of[without_padding(person)]
        if len(alike) > 1 or (alike and len(others) > 1):
            raise InputError(
                f"{table}: {some(sorted(others))} can be {some([f'sub-{f}' for f in alike])}; "
                "write the ids as the folders have them"
            )
        if alike:
            matched[person] = alike[0]
            free.remove(alike[0])
    lost = [person for person in waiting if person not in matched]
    if lost and (free or not matched):
        raise InputError(
            f"{len(lost)} of {len(people)} participants of {table} have no folder: {some(lost)}; "
            f"{len(free)} folders have no participant: {some([f'sub-{f}' for f in free])}. "
            "Write the ids as the folders have them, and remove the rows without images"
        )
    _warn_of_changes(table, {p: f for p, f in matched.items() if p != f}, lost)
    return {**{person: person for person in lost}, **matched}


def _by_plain_id(ids: Iterable[str]) -> dict[str, list[str]]:
    """Group ids that differ in leading zeros or in case only."""
    groups: dict[str, list[str]] = {}
    for name in ids:
        groups.setdefault(without_padding(name), []).append(name)
    return groups


def _warn_of_changes(table: Path, changed: Mapping[str, str], lost: Sequence[str]) -> None:
    if changed:
        pairs = [f"{person} is sub-{folder}" for person, folder in changed.items()]
        logger.warning("%s: ids matched in spite of leading zeros or case: %s", table, some(pairs))
    if lost:
        logger.warning("%s: %d participants have no images: %s", table, len(lost), some(lost))


def _describe_several(table: Path, several: Sequence[Sequence[bids.BidsImage]]) -> str:
    """Message for visits that have several images of one sequence."""
    first = several[0]
    differing = [k for k in _keys(first) if len({image.entity(k) for image in first}) > 1]
    advice = "give a table with a column of paths"
    if differing:
        key = differing[0]
        advice = (
            f"choose with --prefer {key}={first[0].entity(key)} (repeat it for more entities; "
            f"{key}= takes the one without {key}), or {advice}"
        )
    return (
        f"{len(several)} visits of {table} have several images of one sequence, e.g. "
        f"{some([image.path.name for image in first])}; {advice}"
    )


def _keys(images: Sequence[bids.BidsImage]) -> list[str]:
    return list(dict.fromkeys(k for i in images if i.name for k in i.name.entities))
