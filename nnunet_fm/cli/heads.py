"""`nnunet-fm heads`: list, run, compare, robustness."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_fm.cli.features import DEFAULT_CACHE, add_no_match_option
from nnunet_fm.cli.parser import Commands, add_prefer
from nnunet_fm.internal import option_types

if TYPE_CHECKING:
    from nnunet_fm.heads.task_data import TaskInputs


def add_commands(commands: Commands) -> None:
    """Add the sub-commands of `nnunet-fm heads`."""
    commands.add_parser("list", help="list the shipped tasks").set_defaults(function=_list)
    run = commands.add_parser(
        "run", help="train and test heads over ratios and seeds: heads run TASK [KEY=VALUE ...]"
    )
    _add_task(run)
    run.add_argument(
        "-o",
        type=option_types.output_folder,
        default=Path("heads"),
        metavar="FOLDER",
        help="folder of results; finished settings are not computed again (default: heads)",
    )
    run.set_defaults(function=_run)
    compare = commands.add_parser(
        "compare", help="paired tests between encoders, and their curves in one figure"
    )
    compare.add_argument(
        "runs",
        type=option_types.existing_folder,
        nargs="+",
        help="folders that `heads run` wrote, one per encoder",
    )
    compare.add_argument(
        "-o", type=option_types.output_folder, default=Path("comparison"), metavar="FOLDER"
    )
    compare.set_defaults(function=_compare)
    robust = commands.add_parser(
        "robustness",
        help="test heads trained on clean volumes on perturbed ones: features extract --perturb",
    )
    _add_task(robust)
    robust.add_argument(
        "-o", type=option_types.output_folder, default=Path("robustness"), metavar="FOLDER"
    )
    robust.set_defaults(function=_robustness)


def _add_task(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a task and its inputs."""
    parser.add_argument("task", type=option_types.text, help="name of a shipped task, or YAML file")
    parser.add_argument(
        "overrides",
        type=option_types.key_value,
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="e.g. target=sex seeds=3",
    )
    parser.add_argument(
        "--table",
        type=option_types.existing_path,
        required=True,
        help="table that was given to `features extract`",
    )
    add_prefer(parser)
    parser.add_argument(
        "--cache", type=option_types.output_folder, default=DEFAULT_CACHE, metavar="FOLDER"
    )
    parser.add_argument(
        "--encoder",
        type=option_types.text,
        help="name or hash, if the cache holds several (see `features list`)",
    )
    parser.add_argument(
        "--pretrain",
        type=option_types.existing_path,
        metavar="MANIFEST",
        help="pretraining manifest; fail if a test subject appears in it",
    )
    parser.add_argument(
        "--allow-leakage",
        action="store_true",
        help="continue despite leakage and record it in every result row",
    )
    add_no_match_option(parser)


def _open_task(parsed: argparse.Namespace) -> "TaskInputs":
    from nnunet_fm import heads

    return heads.open_task(
        parsed.task,
        parsed.table,
        parsed.cache,
        parsed.overrides,
        parsed.pretrain,
        parsed.allow_leakage,
        parsed.allow_no_match,
        parsed.prefer,
    )


def _list(_: argparse.Namespace) -> None:
    from nnunet_fm.heads.task import task_summaries

    for name, kind, summary in task_summaries():
        print(f"{name:20}{kind:16}{summary}")


def _run(parsed: argparse.Namespace) -> None:
    from nnunet_fm import heads

    data = _open_task(parsed).collect(parsed.encoder)
    print(data.summary())
    run = heads.run_task(data, parsed.o)
    print(f"{heads.results_table(run.results)}\n\nwrote {run.folder}")


def _compare(parsed: argparse.Namespace) -> None:
    from nnunet_fm import heads

    runs = [heads.read_run(folder) for folder in parsed.runs]
    comparisons = heads.write_comparison(runs, parsed.o)
    print(f"{heads.comparison_table(comparisons, runs)}\n\nwrote {parsed.o}")


def _robustness(parsed: argparse.Namespace) -> None:
    from nnunet_fm import heads

    inputs = _open_task(parsed)
    results = heads.write_robustness(inputs, parsed.o, parsed.encoder)
    print(f"{heads.robustness_table(results, inputs.leakage)}\n\nwrote {parsed.o}")
