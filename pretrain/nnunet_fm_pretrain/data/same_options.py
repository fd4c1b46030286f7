"""Refuse to write into a store that was made with other options."""

from collections.abc import Sequence

from nnunet_fm.data.volumes import EXACT_ZERO
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.files import walk_files
from nnunet_fm_pretrain.data.array_files import ENDING, VOLUMES, read_record
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.records import Record, SliceRecord, VolumeRecord
from nnunet_fm_pretrain.data.source import Source


def check_same_options(
    options: PrepareOptions, groups: Sequence[Sequence[Source]], former: Sequence[Record]
) -> None:
    """Check that a store's volumes were made with the same options; others would replace them.

    Args:
        options: given now.
        groups: sources that are made together now.
        former: records of the store's manifests. Without any, the first volume file counts, which
            a run that was interrupted may have left.

    Raises:
        ValueError: the options differ; the message names those that can be known from the records.
    """
    records = list(former) or _first_file(options)
    for record in records:
        if record.preprocessing.removesuffix(EXACT_ZERO) != options.key():
            raise InputError(_message(options, _options_of(record)))
    together = {s.name: len(group) > 1 for group in groups for s in group}
    known = {record.volume for record in records}
    single = {record.volume for record in records if not record.registered}
    for group in groups:
        names = {source.name for source in group}
        if len(names & known) > 1 and names & single:
            raise InputError(_message(options, "no --registered"))
    if any(r.registered and not together.get(r.volume) for r in records):
        raise InputError(_message(options, "--registered"))


def _first_file(options: PrepareOptions) -> list[Record]:
    for path in walk_files(options.store / VOLUMES):
        if path.suffix != ENDING:
            continue
        for kind in (SliceRecord, VolumeRecord):
            record = read_record(path, kind)
            if record is not None:
                return [record]
    return []


def _options_of(record: Record) -> str:
    """Name the options that made a volume, as far as its record tells."""
    _, _, rest = record.preprocessing.removesuffix(EXACT_ZERO).partition("-")
    strip, _, encoding = rest.rpartition("-")
    words = ["--volumes"]
    if isinstance(record, SliceRecord):
        words = ["--size", str(record.size), "--slices", str(len(record.slices))]
    words += ["--skull-strip", strip]
    if encoding == "uint8":
        words.append("--uint8")
    return " ".join(words)


def _message(options: PrepareOptions, before: str) -> str:
    return (
        f"{options.store} was made with other options (its records say {before}), now "
        f"{options.describe()}: its volumes would be replaced. "
        "Use the same options, give another -o, or delete the folder"
    )
