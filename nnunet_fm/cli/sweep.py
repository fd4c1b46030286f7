"""`nnunet-fm sweep CONFIG.yaml`, and `nnunet-fm sweep status FOLDER`."""

import argparse
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_fm.cli.parser import Commands, add_group
from nnunet_fm.internal.errors import StorageError

if TYPE_CHECKING:
    from nnunet_fm.experiments.config import Sweep
    from nnunet_fm.experiments.execute import Outcome
    from nnunet_fm.experiments.runs import PlannedSweep, Run

STOPPED = 130  # as a shell says after Ctrl-C


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm sweep`; `sweep CONFIG.yaml` is short for `sweep run CONFIG.yaml`."""
    sweep, group = add_group(
        commands, "sweep", "a benchmark of many runs: sweep CONFIG.yaml, sweep status FOLDER"
    )
    sweep.set_defaults(default_command="run")
    run = group.add_parser(
        "run", help="plan, show and run a sweep; what is finished is not run again"
    )
    run.add_argument("config", help="YAML file, or name of a shipped one")
    run.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. ratios=[0.1,1.0]"
    )
    run.add_argument(
        "-o", type=Path, metavar="FOLDER", help="logs and status; sweeps/NAME if not given"
    )
    run.add_argument("--dry-run", action="store_true", help="plan and show, run nothing")
    run.add_argument("--print", action="store_true", help="print the commands, for any scheduler")
    run.add_argument(
        "--executor",
        choices=("local", "slurm", "submitit"),
        default="local",
        help="submitit: its local executor",
    )
    run.set_defaults(function=_run)
    status = group.add_parser("status", help="a line per run: state, epoch, Dice, time left")
    status.add_argument("folder", type=Path, help="of the sweep: sweeps/NAME")
    status.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page that loads itself anew"
    )
    status.add_argument("--watch", type=float, metavar="SECONDS", help="look again and again")
    status.set_defaults(function=_status)


def _run(parsed: argparse.Namespace) -> int:
    from nnunet_fm.experiments.config import read_sweep
    from nnunet_fm.experiments.cost_estimate import estimate, words
    from nnunet_fm.experiments.runs import State, plan_sweep, write_runs
    from nnunet_fm.experiments.status import read_status, table
    from nnunet_fm.internal.folders import nnunet_folder

    sweep = read_sweep(parsed.config, parsed.overrides)
    folder = (parsed.o or Path("sweeps") / Path(parsed.config).stem).absolute()
    preprocessed, results = nnunet_folder("nnUNet_preprocessed"), nnunet_folder("nnUNet_results")
    planned = plan_sweep(sweep, preprocessed, results)
    write_runs(planned.runs, folder)
    waiting = [run for run in planned.runs if run.state() is not State.FINISHED]
    if parsed.print:
        print(
            "\n".join(
                " ".join(w)
                for w in [*planned.preprocessing, *(r.command(sweep.device) for r in waiting)]
            )
        )
        return 0
    results.mkdir(parents=True, exist_ok=True)
    print(table(read_status(planned.runs, folder)))
    cost = estimate(planned.runs, preprocessed)
    free = shutil.disk_usage(results).free / 1e9
    print(f"{words(cost, sweep.at_a_time)}, {free:.0f} GB free")
    if parsed.dry_run:
        if parsed.executor == "slurm":
            from nnunet_fm.experiments.slurm import batch_file

            print(batch_file(waiting, sweep, folder))
        return 0
    if cost.gigabytes > free:
        raise StorageError(
            f"the checkpoints need about {cost.gigabytes:.2g} GB, {results} has {free:.2g} GB free; make room, or "
            "point nnUNet_results to a larger disk"
        )
    try:
        _preprocess(planned, sweep, folder)
        outcomes = _execute(waiting, sweep, folder, parsed.executor)
    except KeyboardInterrupt:
        print("stopped; what nnU-Net saved stays. Type the same command to go on")
        return STOPPED
    print(table(read_status(planned.runs, folder)))
    return 1 if any(o.state != "finished" for o in outcomes) else 0


def _preprocess(planned: "PlannedSweep", sweep: "Sweep", folder: Path) -> None:
    from nnunet_fm.experiments.execute import LOGS, run_logged

    for words in planned.preprocessing:
        words = words + (["-np", str(sweep.processes)] if sweep.processes else [])
        print(f"$ {' '.join(words)}", flush=True)
        run_logged(words, folder / LOGS / "preprocessing.log")


def _execute(waiting: "list[Run]", sweep: "Sweep", folder: Path, executor: str) -> "list[Outcome]":
    from nnunet_fm.experiments.execute import run_here

    if executor == "local":
        return run_here(waiting, sweep, folder, _say)
    from nnunet_fm.experiments.slurm import submit

    jobs = submit(waiting, sweep, folder, here=executor == "submitit") if waiting else []
    print(f"{len(jobs)} jobs: {', '.join(str(job.job_id) for job in jobs)}")
    if executor == "slurm":
        print(f"look at them: nnunet-fm sweep status {folder}")
        return []
    outcomes = [job.result() for job in jobs]
    for outcome in outcomes:
        _say(outcome)
    return outcomes


def _say(outcome: "Outcome") -> None:
    print(
        f"{outcome.run}: {outcome.state} after {outcome.seconds / 60:.1f} min {outcome.reason}".rstrip(),
        flush=True,
    )


def _status(parsed: argparse.Namespace) -> None:
    from nnunet_fm.experiments.execute import running
    from nnunet_fm.experiments.runs import read_runs
    from nnunet_fm.experiments.status import page, read_status, table

    while True:
        lines = read_status(read_runs(parsed.folder), parsed.folder, running(parsed.folder))
        print(table(lines), flush=True)
        if parsed.html:
            parsed.html.write_text(page(lines, parsed.folder.name))
        if not parsed.watch:
            return
        time.sleep(parsed.watch)
