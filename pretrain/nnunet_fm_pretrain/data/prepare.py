"""`nnunet-fm pretrain prepare`: from files to a slice store; parallel, resumable, in parts."""

import csv
import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.data.volumes import BadVolumeError, check_same_grid, read_volume, voxels_sha256
from nnunet_fm.internal.arguments import check_part
from nnunet_fm.internal.errors import FailedRunError, InputError
from nnunet_fm.internal.files import files_of, files_sha256, replaced_atomically
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data.exclusion import read_subjects, without_subjects
from nnunet_fm_pretrain.data.preprocessing import Preprocessing, preprocess_registered
from nnunet_fm_pretrain.data.slice_store import (
    VolumeRecord,
    copies,
    intact_record,
    manifest_name,
    read_manifests,
    write_manifest,
    write_volume,
)
from nnunet_fm_pretrain.data.sources import Source, find_sources
from nnunet_fm_pretrain.data.workers import one_thread

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """How every volume is made.

    Attributes:
        store: folder to write to.
        preprocessing: see `Preprocessing`.
        strip: name of the skull stripping plug-in.
        compact: 255 grey levels instead of float16.
        registered: the sequences of one subject and session lie on one grid: crop them together,
            keep the same slices.
    """

    store: Path
    preprocessing: Preprocessing = Preprocessing()
    strip: str = "none"
    compact: bool = False
    registered: bool = False

    def key(self) -> str:
        """Identity of what is done to the input's bytes."""
        return f"{self.preprocessing.key()}-{self.strip}-{'uint8' if self.compact else 'float16'}"

    def groups(self, sources: Sequence[Source]) -> list[list[Source]]:
        """Sources that are made together."""
        if not self.registered:
            return [[source] for source in sources]
        together: dict[tuple[str, ...], list[Source]] = {}
        for source in sources:
            together.setdefault((source.dataset, source.subject, source.session), []).append(source)
        return list(together.values())


@dataclass(frozen=True)
class Outcome:
    """What became of one source: its record, or the reason why there is none; and whether it was there already."""

    source: Source
    record: VolumeRecord | None = None
    reason: str = ""
    ready: bool = False


def prepare(
    given: Path,
    job: Job,
    processes: int = 2,
    part: tuple[int, int] = (0, 1),
    exclude: Path | None = None,
    dataset: str | None = None,
    licence: str = "",
) -> list[Outcome]:
    """Make the volumes that are not in the store yet, and the manifest of all that are.

    Args:
        given: CSV, BIDS tree or folder, see `find_sources`.
        job: what is done.
        processes: volumes at a time.
        part: (number of this part from 0, number of parts); each part writes a manifest of its own.
        exclude: file of subject ids that are left out.
        dataset: name of the collection, where the input does not say it.
        licence: note for volumes that have none of their own.

    Returns:
        One outcome per volume; those without a record are listed in `failures.csv` as well.

    Raises:
        FileNotFoundError, ValueError: nothing to do, or names that clash; before any work.
        OSError, RuntimeError: the disk is full, or a process died; finished volumes stay.
    """
    check_part(part)
    number, parts = part
    find_stripper(job.strip)
    sources = find_sources(given, dataset, licence)
    if exclude is not None:
        sources = _not_excluded(sources, exclude)
    _check_former(job.store, sources, parts)
    job.store.mkdir(parents=True, exist_ok=True)
    outcomes = _without_copies(_all_outcomes(job.groups(sources)[number::parts], job, processes))
    name = manifest_name(number, parts)
    write_manifest(job.store / name, [o.record for o in outcomes if o.record])
    failures = name.replace("manifest", "failures").replace(".jsonl", ".csv")
    _write_failures(job.store / failures, [o for o in outcomes if not o.record])
    return outcomes


def make_group(sources: Sequence[Source], job: Job) -> list[Outcome]:
    """Make the volumes of one grid, or take them from the store if they were made from the same bytes the same way."""
    digests: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for source in sources:
        try:
            digests[source.name] = source_sha256(source)
        except BadVolumeError as error:
            reasons[source.name] = str(error)
    group = (
        hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:16]
        if len(digests) > 1
        else ""
    )
    records = {name: intact_record(job.store, name) for name in digests}
    wanted = {name: (digest, job.key(), group) for name, digest in digests.items()}
    ready = all(
        r and (r.source_sha256, r.preprocessing, r.registered) == wanted[n]
        for n, r in records.items()
    )
    if not ready:
        good = [s for s in sources if s.name in digests]
        records, failed = _made(good, digests, group, job)
        reasons |= failed
    return [Outcome(s, records.get(s.name), reasons.get(s.name, ""), ready) for s in sources]


def _made(
    sources: Sequence[Source], digests: dict[str, str], group: str, job: Job
) -> tuple[dict[str, VolumeRecord | None], dict[str, str]]:
    """Write the volumes of one grid: records, and reasons where there is none, by name."""
    strip = find_stripper(job.strip)
    read, images, reasons = [], [], {}
    for source in sources:
        try:
            volume, image = read_volume(source.path)
            read.append((source, volume, strip(volume, image, source.mask)))
            images.append(image)
        except BadVolumeError as error:
            reasons[source.name] = str(error)
    try:
        check_same_grid(images)
        cut, numbers = preprocess_registered(
            [v for _, v, _ in read], [b for *_, b in read], job.preprocessing
        )
    except BadVolumeError as error:
        return {}, reasons | {s.name: str(error) for s, *_ in read}
    records: dict[str, VolumeRecord | None] = {}
    for (source, volume, _), slices in zip(read, cut, strict=True):
        records[source.name] = write_volume(
            job.store,
            slices,
            job.compact,
            volume=source.name,
            dataset=source.dataset,
            subject=source.subject,
            session=source.session,
            sequence=source.sequence,
            licence=source.licence,
            slices=tuple(int(n) for n in numbers),
            source_sha256=digests[source.name],
            preprocessing=job.key(),
            registered=group,
            voxels_sha256=voxels_sha256(volume),
        )
    return records, reasons


def source_sha256(source: Source) -> str:
    """SHA-256 of the bytes of the source's files, its mask included.

    Raises:
        BadVolumeError: no such file.
    """
    files = [*files_of(source.path), *([source.mask] if source.mask else [])]
    for file in files:
        if not file.is_file():
            raise BadVolumeError(f"{file} does not exist")
    try:
        return files_sha256(files)
    except OSError as error:
        raise BadVolumeError(f"{error.filename} cannot be read: {error.strerror}") from None


def _check_former(store: Path, sources: Sequence[Source], parts: int) -> None:
    """A store is made from one input in one number of parts: mixed, left-out subjects would come back unseen.

    Raises:
        ValueError: it holds volumes that this input does not name, or was made in other parts.
    """
    former, former_parts = read_manifests(store)
    if former and former_parts != parts:
        raise InputError(
            f"{store} was made with --num-parts {former_parts}, now {parts}; use the same, or delete its manifests"
        )
    others = sorted({r.volume for r in former} - {s.name for s in sources})
    if others:
        raise InputError(
            f"{store} holds {len(others)} volumes that this input does not name (excluded now?): {some(others)}. "
            "One store is made from one input: give another -o, or a CSV that names them all"
        )


def _not_excluded(sources: list[Source], exclude: Path) -> list[Source]:
    kept, unmatched = without_subjects(sources, read_subjects(exclude))
    logger.warning("left out %d volumes of the subjects in %s", len(sources) - len(kept), exclude)
    if len(kept) == len(sources):
        raise InputError(
            f"none of the ids in {exclude} ({some(unmatched)}) is a subject here; "
            f"the subjects are called {some(sorted({s.subject for s in sources}))}"
        )
    if unmatched:
        logger.warning(
            "%d ids of %s match no subject here: %s", len(unmatched), exclude, some(unmatched)
        )
    if not kept:
        raise InputError(f"every subject is excluded by {exclude}; nothing is left to prepare")
    return kept


def _all_outcomes(groups: Sequence[Sequence[Source]], job: Job, processes: int) -> list[Outcome]:
    """Outcomes in the order of the sources."""
    if processes <= 1:
        return [
            o for g in tqdm(groups, desc="preparing", unit="volume") for o in make_group(g, job)
        ]
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=one_thread) as pool:
        futures = [pool.submit(make_group, g, job) for g in groups]
        try:
            return [o for f in tqdm(futures, desc="preparing", unit="volume") for o in f.result()]
        except BrokenProcessPool:
            raise FailedRunError(
                "a process was killed, perhaps for want of memory; finished volumes are kept. "
                "Type the command again, with fewer processes: -np 1"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _without_copies(outcomes: list[Outcome]) -> list[Outcome]:
    """Copies of an earlier volume become failures."""
    earlier = copies([o.record for o in outcomes if o.record])
    return [
        replace(o, record=None, reason=f"its bytes are those of {earlier[o.source.name]}")
        if o.source.name in earlier
        else o
        for o in outcomes
    ]


def _write_failures(path: Path, failures: Sequence[Outcome]) -> None:
    if not failures:
        path.unlink(missing_ok=True)
        return
    with (
        replaced_atomically(str(path)) as temporary,
        Path(temporary).open("w", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(("volume", "path", "reason"))
        writer.writerows((o.source.name, o.source.path, o.reason) for o in failures)
