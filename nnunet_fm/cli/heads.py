"""`nnunet-fm heads`: list, run, compare, robustness."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_fm.cli.features import DEFAULT_CACHE

if TYPE_CHECKING:
    from nnunet_fm.features import FeatureCache, Table
    from nnunet_fm.heads.saved_runs import FinishedRun


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-commands of `nnunet-fm heads`."""
    commands.add_parser("list", help="the shipped tasks").set_defaults(function=_list)
    run = commands.add_parser(
        "run", help="train and test heads over ratios and seeds: heads run TASK [KEY=VALUE ...]"
    )
    run.add_argument("task", help="name of a shipped task or YAML file")
    run.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. target=sex seeds=3"
    )
    run.add_argument(
        "--table", type=Path, required=True, help="as it was given to `features extract`"
    )
    run.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="FOLDER")
    run.add_argument(
        "--encoder", help="name or hash, where the cache holds several: `features list`"
    )
    _add_leakage(run)
    run.add_argument(
        "-o",
        type=Path,
        default=Path("heads"),
        metavar="FOLDER",
        help="results; finished runs are kept",
    )
    run.set_defaults(function=_run)
    compare = commands.add_parser(
        "compare", help="paired tests between encoders, and their curves in one figure"
    )
    compare.add_argument(
        "runs", type=Path, nargs="+", help="folders that `heads run` wrote, one an encoder"
    )
    compare.add_argument("-o", type=Path, default=Path("comparison"), metavar="FOLDER")
    compare.set_defaults(function=_compare)
    _add_robustness(commands)


def _add_leakage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pretrain",
        type=Path,
        metavar="MANIFEST",
        help="whom the encoder saw; nobody may be tested",
    )
    parser.add_argument(
        "--allow-leakage",
        action="store_true",
        help="go on all the same; it stands beside the results",
    )


def _add_robustness(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    robust = commands.add_parser(
        "robustness", help="heads of clean volumes on perturbed ones: features extract --perturb"
    )
    robust.add_argument("task", help="name of a shipped task or YAML file")
    robust.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. target=sex seeds=3"
    )
    robust.add_argument(
        "--table", type=Path, required=True, help="as it was given to `features extract`"
    )
    robust.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="FOLDER")
    robust.add_argument(
        "--encoder", help="name or hash, where the cache holds several: `features list`"
    )
    robust.add_argument("-o", type=Path, default=Path("robustness"), metavar="FOLDER")
    _add_leakage(robust)
    robust.set_defaults(function=_robustness)


def _robustness(parsed: argparse.Namespace) -> None:
    import torch

    from nnunet_fm.features import FeatureCache, read_table
    from nnunet_fm.heads.figures import draw_robustness
    from nnunet_fm.heads.robustness import markdown, robustness
    from nnunet_fm.heads.task import read_task
    from nnunet_fm.internal.files import write_csv

    task, name = read_task(parsed.task, parsed.overrides), Path(parsed.task).stem
    table, cache = read_table(parsed.table), FeatureCache(parsed.cache)
    leakage = _leakage(parsed, table, cache)
    torch.set_num_threads(1)
    found = robustness(name, task, table, cache, parsed.encoder)
    words = markdown(found) + (f"\n\nLeakage allowed: {leakage}" if leakage else "")
    write_csv(found, parsed.o / "robustness.csv")
    (parsed.o / "robustness.md").write_text(words + "\n")
    draw_robustness(found, parsed.o / "robustness")
    print(f"{words}\n\nwrote {parsed.o}")


def _list(_: argparse.Namespace) -> None:
    from nnunet_fm.heads.task import read_task, shipped_tasks

    for name, path in shipped_tasks().items():
        print(
            f"{name:20}{read_task(name).kind:16}{path.read_text().splitlines()[0].removeprefix('# ')}"
        )


def _run(parsed: argparse.Namespace) -> None:
    import torch

    from nnunet_fm.features import FeatureCache, read_table
    from nnunet_fm.heads.results import markdown
    from nnunet_fm.heads.runner import run_job
    from nnunet_fm.heads.saved_runs import read_run
    from nnunet_fm.heads.task import read_task
    from nnunet_fm.heads.task_data import make_job

    task = read_task(parsed.task, parsed.overrides)
    name = Path(parsed.task).stem
    name = name if f"target={task.target}" not in parsed.overrides else f"{name}_{task.target}"
    table, cache = read_table(parsed.table), FeatureCache(parsed.cache)
    job = make_job(name, task, table, cache, parsed.encoder, _leakage(parsed, table, cache))
    print(
        f"{len(job.names)} cases of {len(set(job.subjects))} subjects; {job.targets.left_out} without a target, "
        f"{job.incomplete} without a volume"
    )
    torch.set_num_threads(1)  # of small products; more threads are slower
    results, folder = run_job(job, parsed.o)
    _draw([read_run(folder)], folder)
    print(f"{markdown(results)}\n\nwrote {folder}")


def _leakage(parsed: argparse.Namespace, table: "Table", cache: "FeatureCache") -> str:
    from nnunet_fm.features.leakage import all_overlaps, refuse

    return refuse(all_overlaps(table, parsed.pretrain, cache.hashes), parsed.allow_leakage)


def _compare(parsed: argparse.Namespace) -> None:
    from nnunet_fm.heads.comparison import compare, markdown
    from nnunet_fm.heads.saved_runs import read_run
    from nnunet_fm.internal.files import write_csv

    runs = [read_run(folder) for folder in parsed.runs]
    found = compare(runs)
    write_csv(found, parsed.o / "comparison.csv")
    (parsed.o / "comparison.md").write_text(markdown(found) + "\n")
    _draw(runs, parsed.o)
    print(f"{markdown(found)}\n\nwrote {parsed.o}")


def _draw(runs: "list[FinishedRun]", folder: Path) -> None:
    """Curves over the ratios, if there are several; survival of the risk groups at each ratio (first seed)."""
    from nnunet_fm.heads.figures import draw_ratio_curves, draw_survival

    models = [
        m for m in ("mlp", "linear") if all(any(r.model == m for r in run.results) for run in runs)
    ]
    main = runs[0].results[0].metric
    if models and len({r.ratio for r in runs[0].results}) > 1:
        draw_ratio_curves(runs, main, models, folder / f"ratios_{main.replace('-', '_')}")
    for run in runs if runs[0].about["kind"] == "survival" else ():
        for ratio in sorted({r.ratio for r in run.results}):
            for model, predictions in run.predictions(ratio, 0).items():
                if model in models:
                    name = f"survival_{run.about['encoder']}_{model}_ratio_{ratio:g}"
                    draw_survival(
                        predictions,
                        f"{run.about['encoder']}, {model}, ratio {ratio:g}",
                        folder / name,
                    )
