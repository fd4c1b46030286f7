"""`nnunet-fm heads`: list, run, finetune, compare, robustness."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_fm.cli.features import DEFAULT_CACHE, add_no_match_option
from nnunet_fm.cli.parser import Commands, add_encoder, add_prefer, add_preprocessing
from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError

if TYPE_CHECKING:
    from nnunet_fm.heads.task import Task
    from nnunet_fm.heads.task_data import TaskInputs


def add_commands(commands: Commands) -> None:
    """Add the sub-commands of `nnunet-fm heads`."""
    commands.add_parser("list", help="list the shipped tasks").set_defaults(function=_list)
    run = commands.add_parser(
        "run", help="train and test heads over ratios and seeds: heads run TASK [KEY=VALUE ...]"
    )
    _add_table(run, "target=sex seeds=3")
    run.add_argument(
        "--encoder",
        type=option_types.text,
        action="append",
        metavar="[COLUMN=]NAME",
        help="name or hash, if the cache holds several (see `features list`); with fusion=concat "
        "also one for each column, e.g. --encoder T1=A --encoder FLAIR=B",
    )
    _add_results(run, "folder of results; finished settings are not computed again")
    run.set_defaults(function=_run)
    _add_finetune(commands)
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
    _add_table(robust, "target=sex seeds=3")
    robust.add_argument(
        "--encoder",
        type=option_types.text,
        help="name or hash, if the cache holds several (see `features list`)",
    )
    robust.add_argument(
        "-o", type=option_types.output_folder, default=Path("robustness"), metavar="FOLDER"
    )
    robust.set_defaults(function=_robustness)


def _add_finetune(commands: Commands) -> None:
    finetune = commands.add_parser(
        "finetune",
        help="train the last blocks of an encoder with a head, on volumes: heads finetune TASK "
        "[KEY=VALUE ...], e.g. finetune.unfreeze=2",
    )
    _add_table(finetune, "target=sex finetune.unfreeze=2 finetune.epochs=50")
    add_encoder(finetune, "pool=summary")
    add_preprocessing(
        finetune, "as in the pretraining of a 3-D encoder; 128 256 256 for one of slices"
    )
    _add_results(finetune, "folder of results; finished trainings are not repeated")
    finetune.set_defaults(function=_finetune)


def _add_results(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "-o",
        type=option_types.output_folder,
        default=Path("heads"),
        metavar="FOLDER",
        help=f"{text} (default: heads)",
    )


def _add_table(parser: argparse.ArgumentParser, example: str) -> None:
    """Add the arguments of a task and its table; `example` shows keys that can be changed."""
    parser.add_argument("task", type=option_types.text, help="name of a shipped task, or YAML file")
    parser.add_argument(
        "overrides",
        type=option_types.key_value,
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help=f"e.g. {example}",
    )
    parser.add_argument(
        "--table",
        type=option_types.existing_path,
        required=True,
        help="table of subjects; for features, the one given to `features extract`",
    )
    add_prefer(parser)
    parser.add_argument(
        "--cache", type=option_types.output_folder, default=DEFAULT_CACHE, metavar="FOLDER"
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


def _open_task(parsed: argparse.Namespace, kind: "type[Task] | None" = None) -> "TaskInputs":
    from nnunet_fm import heads
    from nnunet_fm.heads.task import Task

    return heads.open_task(
        parsed.task,
        parsed.table,
        parsed.cache,
        parsed.overrides,
        parsed.pretrain,
        parsed.allow_leakage,
        parsed.allow_no_match,
        parsed.prefer,
        kind or Task,
    )


def _encoders(given: Sequence[str] | None, columns: Sequence[str]) -> str | dict[str, str] | None:
    """Return one encoder for all columns of volumes, or one for each by its column.

    Raises:
        InputError: several for one column, or some with and some without a column.
    """
    if not given:
        return None
    pairs = [text.partition("=") for text in given]
    named = {column: name for column, _, name in pairs if name and column in columns}
    if not named and len(given) == 1:
        return given[0]
    if len(named) < len(given):
        raise InputError(
            f"--encoder {' --encoder '.join(given)}; allowed: one NAME, or COLUMN=NAME once for "
            f"each of {', '.join(columns)}"
        )
    return named


def _list(_: argparse.Namespace) -> None:
    from nnunet_fm.heads.task import task_summaries

    for name, kind, summary in task_summaries():
        print(f"{name:20}{kind:16}{summary}")


def _run(parsed: argparse.Namespace) -> None:
    from nnunet_fm import heads

    inputs = _open_task(parsed)
    columns = inputs.table.select_modalities(inputs.task.modalities)
    data = inputs.collect(_encoders(parsed.encoder, columns))
    print(data.summary())
    run = heads.run_task(data, parsed.o)
    print(f"{heads.results_table(run.results)}\n\nwrote {run.folder}")


def _finetune(parsed: argparse.Namespace) -> None:
    from nnunet_fm import heads
    from nnunet_fm.features.opening import open_encoder
    from nnunet_fm.internal.arguments import parse_key_values

    inputs = _open_task(parsed, heads.FineTuneTask)
    columns = inputs.table.select_modalities(inputs.task.modalities)
    encoder, recipe = open_encoder(
        parsed.encoder,
        card=parsed.card,
        seed=parsed.seed,
        shape=parsed.shape,
        precision="float32",
        strip=parsed.skull_strip,
        options=parse_key_values(parsed.encoder_options),
        spacing=tuple(parsed.spacing) if parsed.spacing else None,
        visit=columns if parsed.together else None,
    )
    data = heads.finetune_data(inputs, encoder, recipe, parsed.o, processes=parsed.np)
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
