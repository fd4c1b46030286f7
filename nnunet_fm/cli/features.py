"""`nnunet-fm features`: extract, check-table, check-leakage, list, verify, gc."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_fm.cli.parser import Commands, add_encoder_option, add_group
from nnunet_fm.internal.arguments import block_numbers
from nnunet_fm.internal.errors import MissingFileError

if TYPE_CHECKING:
    from nnunet_fm.features.cache import FeatureCache

DEFAULT_CACHE = Path("feature_cache")


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm features`."""
    _, group = add_group(
        commands,
        "features",
        "cached features: extract, check-table, check-leakage, list, verify, gc",
    )
    _add_extract(group)
    _add_checks(group)
    listed = group.add_parser("list", help="encoders, layers and number of volumes")
    listed.set_defaults(function=_list)
    verify = group.add_parser("verify", help="read everything and compare it with its checksums")
    verify.set_defaults(function=_verify)
    gc = group.add_parser("gc", help="remove damaged entries and what killed processes left")
    gc.add_argument(
        "--keep",
        type=Path,
        nargs="+",
        metavar="TABLE",
        help="remove also what none of these tables names",
    )
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    gc.set_defaults(function=_gc)
    for command in (listed, verify, gc):
        command.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="FOLDER")


def _add_extract(commands: Commands) -> None:
    extract = commands.add_parser("extract", help="CLS tokens of every volume of a table, once")
    extract.add_argument("table", type=Path, help="CSV, TSV or BIDS participants.tsv")
    extract.add_argument("--encoder", required=True, metavar="NAME|FILE")
    extract.add_argument(
        "--card", help="weight card of the file, where it cannot be told from the file"
    )
    extract.add_argument(
        "--seed", type=int, help="of random weights, where NAME has no file; default 0"
    )
    add_encoder_option(extract, "init_values=0.1")
    extract.add_argument(
        "--layers", type=block_numbers, metavar="2,5,8,11", help="blocks; the last of each quarter"
    )
    extract.add_argument(
        "--modalities",
        type=lambda t: t.split(","),
        metavar="T1,FLAIR",
        help="columns; all of paths",
    )
    extract.add_argument(
        "--shape", type=int, nargs=3, default=(128, 256, 256), metavar=("Z", "Y", "X")
    )
    extract.add_argument(
        "--strip", default="none", help="none, mask, hd-bet, deepbet or command:PROGRAM {in} {out}"
    )
    extract.add_argument(
        "--perturb",
        metavar="FAMILY=SEVERITY",
        help="of the raw volumes: gamma=0.5, gibbs=0.2, bias=0.3",
    )
    extract.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    extract.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="FOLDER")
    extract.add_argument(
        "--num-parts", type=int, default=1, help="of a cluster; give each its --part-id"
    )
    extract.add_argument("--part-id", type=int, default=0)
    extract.add_argument(
        "--batch-size", type=int, default=64, help="slices at a time; no part in the result"
    )
    extract.add_argument("-np", type=int, default=2, help="processes that read and preprocess")
    extract.set_defaults(function=_extract)


def _add_checks(commands: Commands) -> None:
    check = commands.add_parser(
        "check-table", help="count subjects, splits and volumes; find what is missing or twice"
    )
    check.add_argument("table", type=Path, help="CSV, TSV or BIDS participants.tsv")
    check.add_argument(
        "--read", action="store_true", help="read every volume: find damaged ones and copies"
    )
    check.set_defaults(function=_check_table)
    leak = commands.add_parser(
        "check-leakage", help="who is tested and was seen before; exits with 3 if anybody"
    )
    leak.add_argument("table", type=Path, help="CSV, TSV or BIDS participants.tsv")
    leak.add_argument(
        "--pretrain",
        type=Path,
        metavar="MANIFEST",
        help="slice store, its manifest, or CSV of subjects",
    )
    leak.add_argument(
        "--read", action="store_true", help="compare voxels too, not only names and bytes"
    )
    leak.add_argument(
        "--near",
        type=float,
        metavar="COSINE",
        help="list tested cases whose features are this near: 0.98",
    )
    leak.add_argument("--encoder", help="of --near, where the cache holds several")
    leak.add_argument("-o", type=Path, metavar="CSV", help="write the list")
    leak.set_defaults(function=_check_leakage)
    for command in (check, leak):
        command.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="FOLDER")


def _check_table(parsed: argparse.Namespace) -> int:
    from nnunet_fm.data.subject_table import read_table
    from nnunet_fm.features.cache import FeatureCache
    from nnunet_fm.features.table_check import check_table

    report = check_table(read_table(parsed.table), FeatureCache(parsed.cache).hashes, parsed.read)
    print("\n".join([*report.summary, *(f"problem: {p}" for p in report.problems)]))
    return 1 if report.problems else 0


def _check_leakage(parsed: argparse.Namespace) -> int:
    from nnunet_fm.data.subject_table import read_table
    from nnunet_fm.features.cache import FeatureCache
    from nnunet_fm.features.leakage import all_overlaps, near_duplicates
    from nnunet_fm.internal.files import write_csv

    table, cache = read_table(parsed.table), FeatureCache(parsed.cache)
    found = all_overlaps(table, parsed.pretrain, cache.hashes, parsed.read)
    near = []
    if parsed.near is not None:
        names, x = cache.matrix(table, encoder=parsed.encoder)
        tested = {row.name for row in table.test_rows}
        near = near_duplicates(names, x, [name in tested for name in names], parsed.near)
    for overlap in [*found, *near]:
        print(f"{overlap.test_case} is {overlap.match} ({overlap.evidence})")
    print(
        f"{len({o.test_case for o in found})} of {len(table.test_rows)} tested rows were seen before"
    )
    if parsed.near is not None:
        print(
            f"{len(near)} pairs have features of a cosine of {parsed.near:g} and more; look at them"
        )
    if parsed.o and (found or near):
        write_csv([*found, *near], parsed.o)
    return 3 if found else 0


def _extract(parsed: argparse.Namespace) -> int:
    from nnunet_fm.data.perturbations import Perturbation
    from nnunet_fm.data.subject_table import read_table
    from nnunet_fm.features.cache import FeatureCache
    from nnunet_fm.features.extraction import extract, open_encoder
    from nnunet_fm.internal.arguments import parse_key_values
    from nnunet_fm.internal.files import write_csv

    table = read_table(parsed.table, parsed.modalities)
    names = ("card", "seed", "layers", "shape", "precision", "strip")
    choice = {name: getattr(parsed, name) for name in names}
    change = Perturbation.parse(parsed.perturb) if parsed.perturb else None
    options = parse_key_values(parsed.encoder_options)
    encoder, recipe = open_encoder(parsed.encoder, **choice, options=options, perturbation=change)
    cache, part = FeatureCache(parsed.cache), (parsed.part_id, parsed.num_parts)
    print(
        f"{recipe.name}, blocks {', '.join(map(str, recipe.layers))}, recipe {recipe.identity()[:12]}"
    )
    outcomes = extract(table, encoder, recipe, cache, part, parsed.batch_size, parsed.np)
    failed = [o for o in outcomes if o.reason]
    ready = sum(o.cached for o in outcomes)
    made = len(outcomes) - ready - len(failed)
    print(f"{made} volumes made, {ready} were ready, {len(failed)} failed: {parsed.cache}")
    failures = parsed.cache / f"failures_{parsed.part_id:04d}_of_{parsed.num_parts:04d}.csv"
    failures.unlink(missing_ok=True)
    if failed:
        write_csv(failed, failures)
        print(f"the reasons are in {failures}, the first: {failed[0].subject}: {failed[0].reason}")
    return 1 if failed else 0


def _list(parsed: argparse.Namespace) -> None:
    cache = _existing(parsed.cache)
    print(f"{'encoder':32}{'recipe':14}{'blocks':16}{'voxels':16}{'perturbed':12}volumes")
    for recipe in cache.recipes():
        layers, shape = (
            ",".join(map(str, recipe.layers)),
            "x".join(map(str, recipe.preprocessing["shape"])),
        )
        change = recipe.perturbation or {"family": "", "severity": ""}
        words = f"{change['family']} {change['severity']}"
        print(
            f"{recipe.name:32}{recipe.identity()[:12]:14}{layers:16}{shape:16}{words:12}{len(cache.entries(recipe))}"
        )


def _verify(parsed: argparse.Namespace) -> int:
    cache = _existing(parsed.cache)
    entries = [entry for recipe in cache.recipes() for entry in cache.verify(recipe)]
    bad = [entry for entry in entries if entry.problem]
    for entry in bad:
        print(f"{entry.path}: {entry.problem}")
    print(
        f"{len(entries)} volumes, {len(bad)} damaged"
        + ("; extract again to mend them" if bad else "")
    )
    return 1 if bad else 0


def _gc(parsed: argparse.Namespace) -> None:
    from nnunet_fm.data.subject_table import read_table

    cache, keep = _existing(parsed.cache), None
    if parsed.keep:
        tables = [read_table(path) for path in parsed.keep]
        keep = {
            recipe.identity(): {
                cache.key_of(recipe, row, m) for t in tables for row in t.rows for m in row.volumes
            }
            for recipe in cache.recipes()
        }
    rubbish = cache.garbage(keep)
    size = sum(path.stat().st_size for path in rubbish)
    for path in () if parsed.dry_run else rubbish:
        path.unlink()
    print(
        f"{'would remove' if parsed.dry_run else 'removed'} {len(rubbish)} files, {size / 1e6:.1f} MB"
    )


def _existing(folder: Path) -> "FeatureCache":
    from nnunet_fm.features.cache import FeatureCache

    if not folder.is_dir():
        raise MissingFileError(
            f"{folder} is no feature cache; type: nnunet-fm features extract TABLE --cache {folder}"
        )
    return FeatureCache(folder)
