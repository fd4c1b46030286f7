"""`nnunet-fm evaluate`: a folder of predictions against a folder of ground truth."""

import argparse
from pathlib import Path

from nnunet_fm.internal.errors import MissingFileError


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `nnunet-fm evaluate`."""
    evaluate = commands.add_parser(
        "evaluate", help="Dice, HD95, surface Dice and lesions per case and region"
    )
    evaluate.add_argument("predictions", type=Path)
    evaluate.add_argument("truth", type=Path)
    evaluate.add_argument("--regions", choices=("brats", "dataset"), default="dataset")
    evaluate.add_argument(
        "--dataset-json", type=Path, help="where the regions are; the predictions' own if not given"
    )
    evaluate.add_argument(
        "-o", type=Path, help="folder for scores.csv and scores.md; the predictions' if not given"
    )
    evaluate.add_argument("-np", type=int, default=2, help="processes")
    add_rules(evaluate)
    evaluate.add_argument(
        "--official",
        metavar="CHALLENGE",
        help="also with brats-evaluate: gli, mets, ped, MenRT, MenPre or GoAT",
    )
    evaluate.add_argument(
        "--official-tool", metavar="FILE", help="brats-evaluate in an environment of its own"
    )
    evaluate.set_defaults(function=_evaluate)


def add_rules(parser: argparse.ArgumentParser) -> None:
    """What the metrics leave open."""
    parser.add_argument(
        "--tolerance", type=float, default=1.0, metavar="MM", help="of the surface Dice; default 1"
    )
    parser.add_argument(
        "--lesion-mm3",
        type=float,
        default=50.0,
        metavar="MM3",
        help="smaller lesions do not count; default 50",
    )


def _evaluate(parsed: argparse.Namespace) -> None:
    from nnunet_fm.evaluation.brats_evaluate import official_scores
    from nnunet_fm.evaluation.labels import BRATS_REGIONS, LabelScheme
    from nnunet_fm.evaluation.score_tables import scores_table
    from nnunet_fm.evaluation.segmentation import MetricOptions, evaluate_folders
    from nnunet_fm.internal.files import write_csv

    description = parsed.dataset_json or parsed.predictions / "dataset.json"
    if parsed.regions == "dataset" and not description.is_file():
        raise MissingFileError(
            f"{description} does not exist; give --dataset-json FILE, or --regions brats"
        )
    labelling = (
        LabelScheme.read(description) if description.is_file() else LabelScheme(BRATS_REGIONS)
    )
    if parsed.regions == "brats":
        labelling = LabelScheme(BRATS_REGIONS, ending=labelling.ending)
    out, rules = parsed.o or parsed.predictions, MetricOptions(parsed.tolerance, parsed.lesion_mm3)
    if parsed.official:
        official = official_scores(
            parsed.predictions, parsed.truth, parsed.official, parsed.official_tool
        )
        write_csv(official, out / "official.csv")
        print(f"wrote {out / 'official.csv'}")
    scores = evaluate_folders(parsed.predictions, parsed.truth, labelling, parsed.np, rules)
    write_csv(scores, out / "scores.csv")
    table = scores_table(scores)
    (out / "scores.md").write_text(table + "\n")
    print(f"{table}\n\nwrote {out / 'scores.csv'} and {out / 'scores.md'}")
