"""`nnunet-fm pretrain prepare`: from files to a store; parallel, resumable, in parts."""

import logging
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from nnunet_fm.data.skull_stripping import find_stripper, warn_of_unused_masks
from nnunet_fm.internal.arguments import check_part
from nnunet_fm.internal.atomic_files import write_lines
from nnunet_fm.internal.errors import FailedRunError, InputError
from nnunet_fm.internal.locks import one_writer
from nnunet_fm.internal.messages import some
from nnunet_fm.internal.processes import worker_pool
from nnunet_fm_pretrain.data.exclusion import read_subjects, without_subjects
from nnunet_fm_pretrain.data.prepare_group import Outcome, PrepareOptions, make_group
from nnunet_fm_pretrain.data.records import (
    Record,
    find_duplicates,
    from_json,
    manifest_name,
    read_manifests,
    write_manifest,
)
from nnunet_fm_pretrain.data.same_options import check_same_options
from nnunet_fm_pretrain.data.source import Source
from nnunet_fm_pretrain.data.sources import find_sources
from nnunet_fm_pretrain.data.workers import one_thread

logger = logging.getLogger(__name__)


def prepare(
    source: Path,
    options: PrepareOptions,
    processes: int = 2,
    part: tuple[int, int] = (0, 1),
    exclude: Path | None = None,
    dataset: str | None = None,
    licence: str = "",
) -> list[Outcome]:
    """Make the volumes that are not in the store yet, and the manifest of all that are.

    Args:
        source: CSV, BIDS tree or folder, see `find_sources`.
        options: store and preprocessing.
        processes: volumes at a time.
        part: (number of this part from 0, number of parts); each part writes its own manifest.
        exclude: file of subject ids to exclude.
        dataset: name of the collection, where the input does not hold it.
        licence: note for volumes that have none of their own.

    Returns:
        One outcome per volume; those without a record are also listed in `failures.csv`.

    Raises:
        FileNotFoundError, ValueError: no input, conflicting names, a store made with other options,
            or `registered` without effect, before any work.
        OSError, RuntimeError: full disk or killed process; finished volumes are kept.
    """
    check_part(part)
    number, parts = part
    find_stripper(options.skull_strip)
    sources = find_sources(source, dataset, licence)
    if exclude is not None:
        sources = _not_excluded(sources, exclude)
    if any(source.mask for source in sources):
        warn_of_unused_masks(options.skull_strip)
    all_groups = options.groups(sources)
    if options.registered and not any(len(group) > 1 for group in all_groups):
        raise InputError(_no_effect(sources))
    check_same_options(options, all_groups, _check_former(options, sources, parts))
    name = manifest_name(number, parts)
    with one_writer(options.store, part=f".{name}"):
        outcomes = _without_duplicates(_all_outcomes(all_groups[number::parts], options, processes))
        write_manifest(options.store / name, [o.record for o in outcomes if o.record])
        failures = name.replace("manifest", "failures").replace(".jsonl", ".csv")
        _write_failures(options.store / failures, [o for o in outcomes if not o.record])
    return outcomes


def _no_effect(sources: Sequence[Source]) -> str:
    first = sources[0]
    return (
        "--registered would have no effect: no subject has two volumes of one session here. "
        f"Found: {some([s.name for s in sources])}; session of the first: "
        f"{first.session or 'none'}. Remove --registered, or give a CSV with the columns "
        "subject_id, session_id, dataset, sequence, path"
    )


def _check_former(options: PrepareOptions, sources: Sequence[Source], parts: int) -> list[Record]:
    """Refuse to mix inputs in a store: subjects excluded now would still be in it.

    Returns:
        The records of the store's manifests; none if it is new.

    Raises:
        ValueError: it holds volumes that this input does not name, was made in other parts, or is
            a store of another kind.
    """
    store = options.store
    contents, former_parts = read_manifests(store)
    if contents and former_parts != parts:
        raise InputError(
            f"{store} was made with --num-parts {former_parts}, now {parts}; "
            "use the same, or delete its manifests"
        )
    try:
        former: list[Record] = [from_json(options.preprocessing.record_type, c) for c in contents]
    except InputError as error:
        raise InputError(f"{store} is {error}; give another -o") from None
    others = sorted({r.volume for r in former} - {s.name for s in sources})
    if others:
        raise InputError(
            f"{store} holds {len(others)} volumes that this input does not name (excluded now?): "
            f"{some(others)}. One store is made from one input: give another -o, "
            "or a CSV that names them all"
        )
    return former


def _not_excluded(sources: list[Source], exclude: Path) -> list[Source]:
    kept, unmatched = without_subjects(sources, read_subjects(exclude))
    logger.warning("excluded %d volumes of the subjects in %s", len(sources) - len(kept), exclude)
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


def _all_outcomes(
    groups: Sequence[Sequence[Source]], options: PrepareOptions, processes: int
) -> list[Outcome]:
    """Make all groups; the outcomes are in the order of the sources."""
    outcomes: list[Outcome] = []
    if processes <= 1:
        for group in tqdm(groups, desc="preparing", unit="volume"):
            outcomes += make_group(group, options)
        return outcomes
    with worker_pool(processes, one_thread) as pool:
        futures = [pool.submit(make_group, group, options) for group in groups]
        try:
            for future in tqdm(futures, desc="preparing", unit="volume"):
                outcomes += future.result()
        except BrokenProcessPool:
            raise FailedRunError(
                "a process was killed, perhaps for lack of memory; finished volumes are kept. "
                "Rerun the command with fewer processes: -np 1"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    return outcomes


def _without_duplicates(outcomes: list[Outcome]) -> list[Outcome]:
    """Turn duplicates of an earlier volume into failures."""
    earlier = find_duplicates([o.record for o in outcomes if o.record])
    result = []
    for outcome in outcomes:
        other = earlier.get(outcome.source.name)
        if other is not None:
            outcome = replace(outcome, record=None, reason=f"its bytes are those of {other}")
        result.append(outcome)
    return result


def _write_failures(path: Path, failures: Sequence[Outcome]) -> None:
    if not failures:
        if path.exists():  # a read-only disk refuses to delete even what is not there
            path.unlink()
        return
    rows = [(o.source.name, o.source.path, o.reason) for o in failures]
    write_lines(path, ("volume", "path", "reason"), rows)
