"""`nnunet-fm features`: extract, check-table, check-leakage, list, verify, gc."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_fm.cli.parser import (
    Commands,
    add_encoder,
    add_group,
    add_prefer,
    add_preprocessing,
    perturbation,
)
from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import counted

if TYPE_CHECKING:
    from nnunet_fm.features.cache import FeatureCache

DEFAULT_CACHE = Path("feature_cache")
TABLE_HELP = "CSV, TSV or BIDS participants.tsv"
LEAKAGE_FOUND = 3  # exit code


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm features`."""
    _, group = add_group(
        commands,
        "features",
        "cached features: extract, check-table, check-leakage, list, verify, gc",
    )
    _add_extract(group)
    _add_check_table(group)
    _add_check_leakage(group)
    list_ = group.add_parser("list", help="encoders, layers and number of volumes")
    list_.set_defaults(function=_list)
    verify = group.add_parser("verify", help="read every entry and compare it with its checksums")
    verify.set_defaults(function=_verify)
    gc = group.add_parser("gc", help="remove damaged entries and files of killed processes")
    gc.add_argument(
        "--keep",
        type=option_types.existing_path,
        nargs="+",
        metavar="TABLE",
        help="remove entries that none of these tables names, too",
    )
    add_prefer(gc)
    gc.add_argument("--dry-run", action="store_true", help="remove nothing")
    gc.set_defaults(function=_gc)
    for command in (list_, verify, gc):
        _add_cache(command)


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache",
        type=option_types.output_folder,
        default=DEFAULT_CACHE,
        metavar="FOLDER",
        help="folder of the cache (default: feature_cache)",
    )


def _add_extract(group: Commands) -> None:
    extract = group.add_parser("extract", help="extract the CLS tokens of every volume of a table")
    extract.add_argument("table", type=option_types.existing_path, help=TABLE_HELP)
    add_prefer(extract)
    _add_encoder(extract)
    _add_preprocessing(extract)
    _add_cache(extract)
    extract.add_argument(
        "--num-parts",
        type=option_types.positive_int,
        default=1,
        help="number of parts, one for each job of a cluster",
    )
    extract.add_argument(
        "--part-id",
        type=option_types.non_negative_int,
        default=0,
        help="part of this job, from 0",
    )
    extract.add_argument(
        "--batch-size",
        type=option_types.positive_int,
        default=64,
        help="slices per batch; does not affect results",
    )
    extract.set_defaults(function=_extract)


def _add_encoder(extract: argparse.ArgumentParser) -> None:
    add_encoder(extract, "init_values=0.1")
    extract.add_argument(
        "--layers",
        type=option_types.block_numbers,
        metavar="2,5,8,11",
        help="blocks to cache (default: the last of each quarter)",
    )
    extract.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")


def _add_preprocessing(extract: argparse.ArgumentParser) -> None:
    extract.add_argument(
        "--modalities",
        type=option_types.names,
        metavar="T1,FLAIR",
        help="image-path columns to use (default: all)",
    )
    add_preprocessing(extract, "128 256 256")
    extract.add_argument(
        "--perturb",
        type=perturbation,
        metavar="FAMILY=SEVERITY",
        help="perturb the raw volumes: gamma=0.5, gibbs=0.2, bias=0.3",
    )


def _add_check_table(group: Commands) -> None:
    check = group.add_parser(
        "check-table", help="count subjects, splits and volumes; list missing and repeated ones"
    )
    check.add_argument("table", type=option_types.existing_path, help=TABLE_HELP)
    add_prefer(check)
    check.add_argument(
        "--read", action="store_true", help="read every volume: list damaged ones and copies"
    )
    _add_cache(check)
    check.set_defaults(function=_check_table)


def _add_check_leakage(group: Commands) -> None:
    leak = group.add_parser(
        "check-leakage", help="list test subjects seen before; exit code 3 if there are any"
    )
    leak.add_argument("table", type=option_types.existing_path, help=TABLE_HELP)
    add_prefer(leak)
    leak.add_argument(
        "--pretrain",
        type=option_types.existing_path,
        metavar="MANIFEST",
        help="pretraining data: a slice store, its manifest, or a CSV of subjects",
    )
    add_no_match_option(leak)
    leak.add_argument(
        "--read", action="store_true", help="compare voxels, too, not only names and bytes"
    )
    leak.add_argument(
        "--near-duplicates",
        "--near",
        type=option_types.cosine,
        metavar="COSINE",
        help="list test cases whose features are at least this similar, e.g. 0.98",
    )
    leak.add_argument(
        "--encoder",
        type=option_types.text,
        help="encoder of --near-duplicates, if the cache holds several",
    )
    leak.add_argument(
        "-o", type=option_types.output_file, metavar="CSV", help="write the list to a file"
    )
    _add_cache(leak)
    leak.set_defaults(function=_check_leakage)


def add_no_match_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that accepts a pretraining manifest with ids of another form."""
    parser.add_argument(
        "--allow-no-match",
        action="store_true",
        help="accept a pretraining manifest whose ids are written in another form than the table's",
    )


def _check_table(parsed: argparse.Namespace) -> int:
    from nnunet_fm.data.subject_table import read_table
    from nnunet_fm.features.cache import FeatureCache
    from nnunet_fm.features.table_check import check_table

    table = read_table(parsed.table, prefer=parsed.prefer)
    report = check_table(table, FeatureCache(parsed.cache).hashes, parsed.read)
    print("\n".join([*report.summary, *(f"problem: {p}" for p in report.problems)]))
    return 1 if report.problems else 0


def _check_leakage(parsed: argparse.Namespace) -> int:
    from nnunet_fm.data.subject_table import read_table
    from nnunet_fm.features.cache import FeatureCache
    from nnunet_fm.features.leakage import all_overlaps, near_duplicates_of
    from nnunet_fm.internal.atomic_files import write_csv

    if parsed.encoder and parsed.near_duplicates is None:
        raise InputError("--encoder is for --near-duplicates; give it too, e.g. 0.98")
    table = read_table(parsed.table, prefer=parsed.prefer)
    cache = FeatureCache(parsed.cache)
    seen = all_overlaps(table, parsed.pretrain, cache.hashes, parsed.read, parsed.allow_no_match)
    near = []
    if parsed.near_duplicates is not None:
        near = near_duplicates_of(table, cache, parsed.near_duplicates, parsed.encoder)
    for overlap in [*seen, *near]:
        print(f"{overlap.test_case} is {overlap.match} ({overlap.evidence})")
    cases = len({overlap.test_case for overlap in seen})
    print(f"{cases} of {len(table.test_rows)} tested rows were seen before")
    if parsed.near_duplicates is not None:
        print(
            f"{counted(len(near), 'pair')} with a cosine similarity of features of at least "
            f"{parsed.near_duplicates:g}; look at them"
        )
    if parsed.o and (seen or near):
        write_csv([*seen, *near], parsed.o)
    return LEAKAGE_FOUND if seen else 0


def _extract(parsed: argparse.Namespace) -> int:
    from nnunet_fm.data.perturbations import Perturbation
    from nnunet_fm.data.subject_table import read_table
    from nnunet_fm.features.cache import FeatureCache
    from nnunet_fm.features.extraction import extract
    from nnunet_fm.features.opening import SHAPE, open_encoder
    from nnunet_fm.internal.arguments import parse_key_values
    from nnunet_fm.internal.atomic_files import write_csv

    cache = FeatureCache(parsed.cache)
    table = read_table(parsed.table, parsed.modalities, parsed.prefer)
    encoder, recipe = open_encoder(
        parsed.encoder,
        card=parsed.card,
        seed=parsed.seed,
        layers=parsed.layers,
        shape=parsed.shape or (None if parsed.spacing else SHAPE),
        precision=parsed.precision,
        strip=parsed.skull_strip,
        options=parse_key_values(parsed.encoder_options),
        perturbation=Perturbation.parse(parsed.perturb) if parsed.perturb else None,
        spacing=tuple(parsed.spacing) if parsed.spacing else None,
        visit=table.select_modalities(parsed.modalities) if parsed.together else None,
    )
    blocks = ", ".join(str(layer) for layer in recipe.layers)
    print(f"{recipe.name}, blocks {blocks}, recipe {recipe.identity()[:12]}")
    if recipe.channels:
        print(f"channels: {', '.join(recipe.channels)}")
    part = (parsed.part_id, parsed.num_parts)
    size, processes = parsed.batch_size, parsed.np
    results = extract(table, encoder, recipe, cache, part, size, processes, announce=print)
    failed = [result for result in results if result.reason]
    cached = sum(result.cached for result in results)
    extracted = len(results) - cached - len(failed)
    print(
        f"{counted(extracted, recipe.unit)} extracted, {cached} already cached, "
        f"{len(failed)} failed: {parsed.cache}"
    )
    failures = parsed.cache / f"failures_{parsed.part_id:04d}_of_{parsed.num_parts:04d}.csv"
    if failures.exists():  # nothing is written where all is cached: the disk may be read-only
        failures.unlink()
    if failed:
        write_csv(failed, failures)
        print(f"reasons: {failures}; the first: {failed[0].subject}: {failed[0].reason}")
    return 1 if failed else 0


def _list(parsed: argparse.Namespace) -> None:
    cache = _existing_cache(parsed.cache)
    print(
        f"{'encoder':32}{'recipe':14}{'blocks':16}{'voxels':16}{'perturbed':12}{'volumes':9}input"
    )
    for recipe in cache.recipes():
        layers = ",".join(str(layer) for layer in recipe.layers)
        change = ""
        if recipe.perturbation:
            change = f"{recipe.perturbation['family']} {recipe.perturbation['severity']}"
        print(
            f"{recipe.name:32}{recipe.identity()[:12]:14}{layers:16}{recipe.shape_text:16}"
            f"{change:12}{len(cache.entries(recipe)):<9}{recipe.input_text}".rstrip()
        )


def _verify(parsed: argparse.Namespace) -> int:
    cache = _existing_cache(parsed.cache)
    entries = [entry for recipe in cache.recipes() for entry in cache.verify(recipe)]
    damaged = [entry for entry in entries if entry.problem]
    for entry in damaged:
        print(f"{entry.path}: {entry.problem}")
    advice = "; rerun features extract to replace them" if damaged else ""
    print(f"{counted(len(entries), 'volume')}, {len(damaged)} damaged{advice}")
    return 1 if damaged else 0


def _gc(parsed: argparse.Namespace) -> None:
    from nnunet_fm.data.subject_table import read_table
    from nnunet_fm.features.prepared_volumes import volume_cache
    from nnunet_fm.internal.files import delete, size_on_disk

    cache = _existing_cache(parsed.cache)
    tables = [read_table(path, prefer=parsed.prefer) for path in parsed.keep or ()]
    found = []
    for part in (cache, volume_cache(cache)):
        found += part.garbage(part.keys_of(tables) if tables else None)
    files = set(found)  # the outer cache finds temporary files of the inner one, too
    size = sum(size_on_disk(path) for path in files)
    if not parsed.dry_run:
        for path in files:
            delete(path)
    verb = "would remove" if parsed.dry_run else "removed"
    print(f"{verb} {counted(len(files), 'file')}, {size / 1e6:.1f} MB")


def _existing_cache(folder: Path) -> "FeatureCache":
    from nnunet_fm.features.cache import FeatureCache

    if not folder.exists():
        raise MissingFileError(
            f"{folder} is not a feature cache; type: nnunet-fm features extract TABLE "
            f"--cache {folder}"
        )
    return FeatureCache(folder)
