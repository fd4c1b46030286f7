"""`nnunet-fm heads`: list, run."""

import argparse
from pathlib import Path

from nnunet_fm.features_command import DEFAULT_CACHE


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-commands of `nnunet-fm heads`."""
    commands.add_parser("list", help="the shipped tasks").set_defaults(function=_list)
    run = commands.add_parser("run", help="train and test heads over ratios and seeds: heads run TASK [KEY=VALUE ...]")
    run.add_argument("task", help="name of a shipped task or YAML file")
    run.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. target=sex seeds=3")
    run.add_argument("--table", type=Path, required=True, help="as it was given to `features extract`")
    run.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="FOLDER")
    run.add_argument("--encoder", help="name or hash, where the cache holds several: `features list`")
    run.add_argument("-o", type=Path, default=Path("heads"), metavar="FOLDER", help="results; finished runs are kept")
    run.set_defaults(function=_run)


def _list(_: argparse.Namespace) -> None:
    from nnunet_fm.heads.task import read_task, shipped_tasks

    for name, path in shipped_tasks().items():
        print(f"{name:20}{read_task(name).kind:16}{path.read_text().splitlines()[0].removeprefix('# ')}")


def _run(parsed: argparse.Namespace) -> None:
    import torch

    from nnunet_fm.features import FeatureCache, read_table
    from nnunet_fm.heads.run import make_job, markdown, run_job
    from nnunet_fm.heads.task import read_task

    task = read_task(parsed.task, parsed.overrides)
    name = f"{Path(parsed.task).stem}_{task.target}"
    table = read_table(parsed.table)
    job = make_job(name, task, table, FeatureCache(parsed.cache), parsed.encoder)
    print(
        f"{len(job.names)} rows of {len(set(job.subjects))} subjects; {job.targets.left_out} without target or volume"
    )
    torch.set_num_threads(1)  # of small products; more threads are slower
    results, folder = run_job(job, parsed.o)
    print(f"{markdown(results)}\n\nwrote {folder}")
