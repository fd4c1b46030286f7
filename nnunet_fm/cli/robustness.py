"""`nnunet-fm robustness RUNS`: finished segmentation runs on perturbed images."""

import argparse
from pathlib import Path

from nnunet_fm.cli.evaluate import add_metric_options
from nnunet_fm.cli.parser import Commands
from nnunet_fm.internal.errors import InputError


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm robustness`."""
    command = commands.add_parser(
        "robustness", help="finished runs on images with other contrast, Gibbs ringing, bias field"
    )
    command.add_argument(
        "runs", type=Path, nargs="+", help="sweeps/NAME, or folders in nnUNet_results"
    )
    command.add_argument("--encoder", action="append", default=[], help="only these; default: all")
    command.add_argument("--ratio", type=float, help="default: the largest of the finished runs")
    command.add_argument(
        "--seed", type=int, action="append", default=[], help="only these; default: all"
    )
    command.add_argument(
        "--perturb",
        action="append",
        default=[],
        metavar="FAMILY=SEVERITY",
        help="e.g. gibbs=0.2; default: the paper's",
    )
    command.add_argument(
        "--brain",
        type=Path,
        metavar="FOLDER",
        help="brain masks CASE.nii.gz; default: what is not 0",
    )
    command.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda")
    command.add_argument("-np", type=int, default=2, help="processes of the evaluation")
    add_metric_options(command)
    command.set_defaults(function=_robustness)


def _robustness(parsed: argparse.Namespace) -> None:
    from tqdm import tqdm

    from nnunet_fm.data.perturbations import Perturbation
    from nnunet_fm.evaluation.segmentation import MetricOptions
    from nnunet_fm.experiments.find_runs import find_runs
    from nnunet_fm.experiments.perturbed_predictions import paper_perturbations, predict_perturbed
    from nnunet_fm.experiments.report.tables import markdown, robustness_grid
    from nnunet_fm.experiments.robustness import robustness
    from nnunet_fm.experiments.run_scores import score_runs
    from nnunet_fm.experiments.runs import State
    from nnunet_fm.experiments.summary import METRICS
    from nnunet_fm.internal.folders import nnunet_folder
    from nnunet_fm.internal.messages import some

    preprocessed, raw = nnunet_folder("nnUNet_preprocessed"), nnunet_folder("nnUNet_raw")
    asked = [Perturbation.parse(p) for p in parsed.perturb] or paper_perturbations()
    finished = [run for run in find_runs(parsed.runs) if run.state() is State.FINISHED]
    ratio = max((r.ratio for r in finished), default=1.0) if parsed.ratio is None else parsed.ratio
    runs = [
        r
        for r in finished
        if r.ratio == ratio and (not parsed.encoder or r.encoder in parsed.encoder)
    ]
    runs = [r for r in runs if not parsed.seed or r.seed in parsed.seed]
    if not runs:
        known = sorted({f"{r.encoder} at {r.ratio:g}, seed {r.seed}" for r in finished})
        raise InputError(f"no finished run fits; there are: {some(known, 12) or 'none'}")
    rules = MetricOptions(parsed.tolerance, parsed.lesion_mm3)
    scored = score_runs(runs, preprocessed, rules, parsed.np)
    jobs = [(s, p) for s in scored for p in (None, *(p for p in asked if not p.is_identity))]
    for s, perturbation in tqdm(jobs, desc="perturbed"):
        predict_perturbed(s.run, perturbation, s.cases, raw, parsed.device, parsed.brain)
    found = robustness(scored, preprocessed, rules, parsed.np)
    for dataset in dict.fromkeys(r.dataset for r in found):
        print(markdown(robustness_grid(dataset, METRICS[0], found)))
    print(
        f"the page shows it too: nnunet-fm report {' '.join(str(r) for r in parsed.runs)} -o REPORT"
    )
