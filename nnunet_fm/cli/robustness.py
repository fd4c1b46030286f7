"""`nnunet-fm robustness RUNS`: finished segmentation runs on perturbed images."""

import argparse
import sys

from nnunet_fm.cli.evaluate import add_metric_options, metric_options
from nnunet_fm.cli.parser import Commands, perturbation
from nnunet_fm.internal import option_types


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm robustness`."""
    command = commands.add_parser(
        "robustness",
        help="segmentation runs on images with other contrast, Gibbs ringing, bias field",
    )
    command.add_argument(
        "runs",
        type=option_types.existing_folder,
        nargs="+",
        help="sweeps/NAME, or folders in nnUNet_results",
    )
    command.add_argument(
        "--encoder",
        type=option_types.text,
        action="append",
        default=[],
        help="use this encoder; may be repeated",
    )
    command.add_argument(
        "--ratio",
        type=option_types.fraction,
        help="ratio of the runs (default: the largest that is finished)",
    )
    command.add_argument(
        "--seed",
        type=option_types.seed,
        action="append",
        default=[],
        help="use this seed; may be repeated",
    )
    command.add_argument(
        "--perturb",
        type=perturbation,
        action="append",
        default=[],
        metavar="FAMILY=SEVERITY",
        help="e.g. gibbs=0.2; may be repeated (default: all of the paper's)",
    )
    command.add_argument(
        "--brain-masks",
        "--brain",
        type=option_types.existing_folder,
        metavar="FOLDER",
        help="brain masks CASE.nii.gz (default: voxels that are not 0)",
    )
    command.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda")
    command.add_argument(
        "-np", type=option_types.processes, default=2, help="processes of the evaluation"
    )
    add_metric_options(command)
    command.set_defaults(function=_robustness)


def _robustness(parsed: argparse.Namespace) -> int:
    from nnunet_fm.data.perturbations import Perturbation
    from nnunet_fm.experiments.encoder_runs import group_runs
    from nnunet_fm.experiments.find_runs import find_runs
    from nnunet_fm.experiments.perturbed_predictions import (
        paper_perturbations,
        predict_runs,
        select_finished_runs,
    )
    from nnunet_fm.experiments.report.table_formats import to_markdown
    from nnunet_fm.experiments.report.tables import robustness_table
    from nnunet_fm.experiments.robustness import score_perturbations
    from nnunet_fm.experiments.run_scores import Problems, score_runs
    from nnunet_fm.experiments.summary import METRICS, train_cases_by_ratio
    from nnunet_fm.internal.folders import nnunet_folder

    preprocessed = nnunet_folder("nnUNet_preprocessed")
    raw = nnunet_folder("nnUNet_raw")
    perturbations = [Perturbation.parse(text) for text in parsed.perturb] or paper_perturbations()
    runs = select_finished_runs(find_runs(parsed.runs), parsed.encoder, parsed.ratio, parsed.seed)
    options = metric_options(parsed)
    problems: Problems = {}
    scored = score_runs(runs, preprocessed, options, parsed.np, problems)
    predict_runs(scored, perturbations, raw, parsed.device, parsed.brain_masks, problems)
    scores = score_perturbations(scored, preprocessed, options, parsed.np, problems)
    for dataset in dict.fromkeys(score.dataset for score in scores):
        cases = train_cases_by_ratio(g for g in group_runs(scored) if g.dataset == dataset)
        print(to_markdown(robustness_table(dataset, METRICS[0], scores, cases)))
    folders = " ".join(str(folder) for folder in parsed.runs)
    print(f"for figures, type: nnunet-fm report {folders} -o REPORT")
    for (dataset, case), reason in problems.items():
        print(f"not scored: {case} of {dataset}: {reason}", file=sys.stderr)
    return 1 if problems else 0
