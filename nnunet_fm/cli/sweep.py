"""`nnunet-fm sweep CONFIG.yaml`, and `nnunet-fm sweep status FOLDER`."""

import argparse
import functools
import shlex
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_fm.cli.parser import Commands, add_group
from nnunet_fm.internal import option_types

if TYPE_CHECKING:
    from nnunet_fm.experiments.config import Sweep
    from nnunet_fm.experiments.run_sweep import PreparedSweep

INTERRUPTED = 130  # exit code of a shell after Ctrl-C


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm sweep`; `sweep CONFIG.yaml` is short for `sweep run CONFIG.yaml`."""
    sweep, group = add_group(
        commands, "sweep", "a benchmark of many runs: sweep CONFIG.yaml, sweep status FOLDER"
    )
    sweep.set_defaults(default_command="run")
    _add_run(group)
    _add_status(group)


def _add_run(group: Commands) -> None:
    run = group.add_parser("run", help="plan, show and run a sweep; finished runs are skipped")
    run.add_argument("config", type=option_types.text, help="YAML file, or name of a shipped sweep")
    run.add_argument(
        "overrides",
        type=option_types.key_value,
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="e.g. ratios=[0.1,1.0]",
    )
    run.add_argument(
        "-o",
        type=option_types.output_folder,
        metavar="FOLDER",
        help="logs and records (default: sweeps/NAME)",
    )
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything and show the runs; change nothing on disk",
    )
    run.add_argument("--print", action="store_true", help="print the commands, for any scheduler")
    run.add_argument(
        "--executor",
        choices=("local", "slurm", "submitit"),
        default="local",
        help="submitit: its local executor (default: local)",
    )
    run.set_defaults(function=_run)


def _add_status(group: Commands) -> None:
    status = group.add_parser("status", help="a line per run: state, epoch, Dice, time left")
    status.add_argument(
        "folder", type=option_types.existing_folder, help="folder of the sweep: sweeps/NAME"
    )
    status.add_argument(
        "--html",
        type=option_types.output_file,
        metavar="FILE",
        help="write the table as a self-refreshing page, too",
    )
    status.add_argument(
        "--watch",
        type=option_types.positive_float,
        metavar="SECONDS",
        help="repeat at this interval",
    )
    status.set_defaults(function=_status)


def _run(parsed: argparse.Namespace) -> int:
    from nnunet_fm.experiments.config import read_sweep
    from nnunet_fm.experiments.run_locks import sweep_lock

    sweep = read_sweep(parsed.config, parsed.overrides)
    folder = parsed.o or Path("sweeps") / Path(parsed.config).stem
    try:
        with nullcontext() if parsed.dry_run else sweep_lock(folder):
            return _run_locked(parsed, sweep, folder)
    except KeyboardInterrupt:
        print("Stopped. Checkpoints are kept; rerun the command to resume.")
        return INTERRUPTED


def _run_locked(parsed: argparse.Namespace, sweep: "Sweep", folder: Path) -> int:
    from nnunet_fm.experiments.run_sweep import prepare_sweep, train_prepared
    from nnunet_fm.experiments.runs import State
    from nnunet_fm.experiments.status import read_status, status_table

    prepared = prepare_sweep(
        sweep,
        folder,
        dry_run=parsed.dry_run,
        elsewhere=parsed.print or parsed.executor == "slurm",
    )
    if parsed.print:
        for argv in prepared.commands():
            print(shlex.join(argv))
        return 0
    _show(prepared)
    if parsed.dry_run:
        if parsed.executor == "slurm":
            from nnunet_fm.experiments.slurm import batch_file

            print(batch_file(prepared.unfinished, sweep, prepared.folder))
        return 0
    report = functools.partial(print, flush=True)
    outcomes = train_prepared(prepared, parsed.executor, report)
    print(status_table(read_status(prepared.runs, prepared.folder)))
    return 0 if all(outcome.state is State.FINISHED for outcome in outcomes) else 1


def _show(prepared: "PreparedSweep") -> None:
    """Print the runs, what comes before them, and what they need."""
    from nnunet_fm.experiments.cost_estimate import describe_estimate
    from nnunet_fm.experiments.run_locks import running_runs
    from nnunet_fm.experiments.run_sweep import free_gigabytes
    from nnunet_fm.experiments.status import read_status, status_table

    running = running_runs(prepared.folder)
    print(status_table(read_status(prepared.runs, prepared.folder, running)))
    for argv in prepared.preprocessing:
        print(f"to be preprocessed first: {shlex.join(argv)}")
    cost = describe_estimate(prepared.cost, prepared.sweep.max_parallel)
    print(f"{cost}, {free_gigabytes():.0f} GB free")


def _status(parsed: argparse.Namespace) -> None:
    from nnunet_fm.experiments.run_locks import running_runs
    from nnunet_fm.experiments.runs import read_runs
    from nnunet_fm.experiments.status import read_status, status_page, status_table
    from nnunet_fm.internal.atomic_files import write_text

    while True:
        running = running_runs(parsed.folder)
        statuses = read_status(read_runs(parsed.folder), parsed.folder, running)
        print(status_table(statuses), flush=True)
        if parsed.html:
            write_text(parsed.html, status_page(statuses, parsed.folder.name))
        if not parsed.watch:
            return
        time.sleep(parsed.watch)
