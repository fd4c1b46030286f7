"""`nnunet-fm evaluate`: score a folder of predictions against a folder of ground truth."""

import argparse
import sys
from typing import TYPE_CHECKING

from nnunet_fm.cli.parser import Commands, label_scheme
from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError

if TYPE_CHECKING:
    from nnunet_fm.evaluation.segmentation import MetricOptions


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm evaluate`."""
    evaluate = commands.add_parser(
        "evaluate", help="Dice, HD95, surface Dice and lesions per case and region"
    )
    evaluate.add_argument("predictions", type=option_types.existing_folder)
    evaluate.add_argument("truth", type=option_types.existing_folder)
    evaluate.add_argument(
        "--regions",
        choices=("brats", "dataset"),
        default="dataset",
        help="dataset: those of dataset.json (default); brats: those of the BraTS challenge that "
        "the names of the cases tell, checked against the labels of all of them",
    )
    evaluate.add_argument(
        "--scheme",
        type=label_scheme,
        metavar="NAME",
        help="BraTS regions of this label scheme, e.g. gli2021; nnunet-fm convert brats -h lists "
        "them. Implies --regions brats",
    )
    evaluate.add_argument(
        "--dataset-json",
        type=option_types.existing_file,
        help="description of the regions (default: dataset.json in the folder of the predictions)",
    )
    evaluate.add_argument(
        "-o",
        type=option_types.output_folder,
        help="folder of scores.csv and scores.md (default: the folder of the predictions)",
    )
    evaluate.add_argument(
        "-np", type=option_types.processes, default=2, help="number of processes (default: 2)"
    )
    add_metric_options(evaluate)
    evaluate.add_argument(
        "--official",
        type=option_types.text,
        metavar="CHALLENGE",
        help="also score with brats-evaluate: gli, mets, ped, MenRT, MenPre or GoAT",
    )
    evaluate.add_argument(
        "--official-tool",
        type=option_types.existing_file,
        metavar="FILE",
        help="brats-evaluate in an environment of its own (default: the one on the PATH)",
    )
    evaluate.set_defaults(function=_evaluate)


def add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Add the metric options."""
    parser.add_argument(
        "--tolerance",
        type=option_types.non_negative_float,
        default=1.0,
        metavar="MM",
        help="tolerance of the surface Dice (default: 1)",
    )
    parser.add_argument(
        "--lesion-mm3",
        type=option_types.non_negative_float,
        default=50.0,
        metavar="MM3",
        help="smallest volume of a lesion that counts (default: 50)",
    )
    parser.add_argument(
        "--ignore-origin",
        action="store_true",
        help="compare images of one grid even where the origins in their headers differ",
    )


def metric_options(parsed: argparse.Namespace) -> "MetricOptions":
    """Return the metric options that were given."""
    from nnunet_fm.evaluation.segmentation import MetricOptions

    return MetricOptions(parsed.tolerance, parsed.lesion_mm3, parsed.ignore_origin)


def _evaluate(parsed: argparse.Namespace) -> int:
    if parsed.official_tool and not parsed.official:
        raise InputError("--official-tool is for --official; give it too: --official CHALLENGE")
    from nnunet_fm.evaluation.brats_evaluate import official_scores
    from nnunet_fm.evaluation.find_labels import brats_scheme, scheme_of_predictions
    from nnunet_fm.evaluation.label_folders import check_places, find_pairs, readable_pairs
    from nnunet_fm.evaluation.score_tables import scores_table, write_scores
    from nnunet_fm.evaluation.segmentation import evaluate_pairs
    from nnunet_fm.internal.atomic_files import write_csv
    from nnunet_fm.internal.result_sets import replaced_together

    if parsed.scheme or parsed.regions == "brats":
        found = brats_scheme(
            parsed.predictions, parsed.truth, parsed.scheme, parsed.dataset_json, parsed.np
        )
    else:
        found = scheme_of_predictions(
            parsed.predictions, parsed.truth, parsed.dataset_json, parsed.np
        )
    print(found.text)
    options = metric_options(parsed)
    found_pairs = find_pairs(parsed.predictions, parsed.truth, found.scheme.ending)
    pairs, problems = readable_pairs(found_pairs)
    check_places(pairs, options.ignore_origin)
    out = parsed.o or parsed.predictions
    official = []
    if parsed.official:
        official = official_scores(
            pairs,
            found.scheme,
            parsed.official,
            str(parsed.official_tool) if parsed.official_tool else None,
            parsed.scheme or found.scheme.brats or None,
            parsed.np,
            problems,
        )
    scores = evaluate_pairs(pairs, found.scheme, parsed.np, options, problems)
    not_scored = [f"not scored: {case}: {problem}" for case, problem in problems.items()]
    if not_scored:
        not_scored.insert(0, f"the means lack {len(problems)} of {len(found_pairs)} cases:")
    with replaced_together(out, "scores") as folder:
        write_scores(scores, folder, "\n\n".join([found.text, *not_scored]))
        if official:
            write_csv(official, folder / "official.csv")
    if official:
        print(f"wrote {out / 'official.csv'}")
    print(f"{scores_table(scores)}\n\nwrote {out / 'scores.csv'} and {out / 'scores.md'}")
    for line in not_scored:
        print(line, file=sys.stderr)
    return 1 if problems else 0
