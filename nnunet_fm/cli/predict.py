"""`nnunet-fm predict`: nnU-Net's own command around the batched predictor, plus three flags."""

import argparse
import sys

from nnunet_fm.cli.nnunet_flags import check_prediction_flags
from nnunet_fm.cli.parser import Commands, add_trust
from nnunet_fm.internal import option_types
from nnunet_fm.internal.folders import activate
from nnunet_fm.nnunet.commands import check_trainer

PIXELS_PER_BATCH = 16 * 256 * 256


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm predict`; main() hands it all flags that are nnU-Net's."""
    parser = commands.add_parser(
        "predict",
        add_help=False,
        help="as nnUNetv2_predict, slices and mirrors batched: nnunet-fm predict -h",
        description="All flags of nnUNetv2_predict (or, with -m, of "
        "nnUNetv2_predict_from_modelfolder; -m also takes a folder of nnunet-fm export --hub, and "
        "hf://OWNER/NAME[@REVISION]), and:",
    )
    parser.add_argument(
        "-h", "--help", action="store_true", help="show this, then nnU-Net's own flags"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        help="default: the fastest that the device is good at",
    )
    parser.add_argument(
        "--pixels-per-batch",
        type=option_types.positive_int,
        default=PIXELS_PER_BATCH,
        metavar="N",
        help="pixels or voxels in one call of the network; lower it if memory runs out "
        f"(default: {PIXELS_PER_BATCH})",
    )
    parser.add_argument(
        "--skip-background",
        action="store_true",
        help="label slices without any signal as background, without the network",
    )
    add_trust(parser)
    parser.set_defaults(
        function=_predict,
        print_help=parser.print_help,
        own_flags=list(parser._option_string_actions),
        unknown_arguments=[],
    )


def _predict(parsed: argparse.Namespace) -> int:
    argv = list(parsed.unknown_arguments)
    check_trainer(["nnunet-fm", *argv])
    if not parsed.help:
        argv = check_prediction_flags(argv, parsed.own_flags)
    from nnunet_fm.nnunet.replace_predictor import predict_with_arguments

    if parsed.help:
        parsed.print_help()
        argv.append("-h")
    activate()
    problems = predict_with_arguments(
        argv,
        report=print,
        precision=parsed.precision,
        pixels_per_batch=parsed.pixels_per_batch,
        skip_background=parsed.skip_background,
        trust_checkpoint=parsed.trust_checkpoint,
    )
    if problems:
        print(
            f"Not predicted, for the reasons above: {', '.join(problems)}. "
            "All other cases were predicted.",
            file=sys.stderr,
        )
    return 1 if problems else 0
