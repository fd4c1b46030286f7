"""The command `nnunet-fm`: its parser, and how errors are reported.

Commands import torch and nnU-Net when they run, so that `--help` answers at once.
"""

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

import nnunet_fm_pretrain.cli as pretrain
from nnunet_fm.cli import (
    analyze,
    convert,
    demo,
    doctor,
    encoders,
    evaluate,
    export,
    features,
    heads,
    info,
    predict,
    report,
    robustness,
    sweep,
    trainers_path,
)
from nnunet_fm.cli import exec as exec_command
from nnunet_fm.cli.parser import CommandParser, Commands, add_group
from nnunet_fm.internal import folders
from nnunet_fm.internal.arguments import block_numbers
from nnunet_fm.internal.errors import InputError, UserError

USER_ERROR, BUG = 2, 1  # exit codes
# extra of nnunet-fm that installs a package
EXTRAS = {
    "blosc2": "pretrain",
    "cv2": "pretrain",
    "lightly": "pretrain",
    "lightning_fabric": "pretrain",
    "pytorch_lightning": "pretrain",
    "submitit": "slurm",
    "monai": "volume",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words behind `nnunet-fm`; those of this process if None.

    Returns:
        Exit code: 2 after an error that the user can fix (one message), 1 after any other error
        (a traceback), else the command's own.
    """
    warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)  # torch's own
    parsed = parse(sys.argv[1:] if arguments is None else arguments)
    return run_reporting_errors(lambda: parsed.function(parsed), getattr(parsed, "debug", False))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    A command that takes `KEY=VALUE` overrides takes them behind its options too, which argparse
    alone does not allow; a command with `unknown_arguments` gets what it does not know itself.

    Raises:
        SystemExit: unknown words (code 2), or `--help` (code 0).
    """
    parser = build_parser()
    parsed, unknown = parser.parse_known_args(list(arguments))
    if hasattr(parsed, "unknown_arguments"):
        parsed.unknown_arguments = unknown
        return parsed
    overrides = [word for word in unknown if "=" in word and not word.startswith("-")]
    if hasattr(parsed, "overrides") and overrides == unknown:
        parsed.overrides = [*parsed.overrides, *overrides]
    elif unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return parsed


def run_reporting_errors(command: Callable[[], int | None], debug: bool = False) -> int:
    """Run a command and turn an exception into messages on standard error and an exit code.

    Args:
        command: returns its exit code; None means 0.
        debug: print the traceback of an error that the user can fix, too.
    """
    try:
        return command() or 0
    except Exception as error:
        message = _user_message(error)
        if message is None or debug:
            traceback.print_exc()
        if message is None:
            message = (
                "this is a bug. Please report it with the command that you typed and the "
                "traceback above"
            )
            print(f"nnunet-fm: {message}", file=sys.stderr)
            return BUG
        print(f"nnunet-fm: {message}", file=sys.stderr)
        return USER_ERROR


def _user_message(error: Exception) -> str | None:
    """Message of an error that the user can fix; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:  # of the operating system
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".")[0]
        if package in EXTRAS:
            return f"this command needs {package}; type: pip install 'nnunet-fm[{EXTRAS[package]}]'"
    return None


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser: argparse.ArgumentParser = CommandParser(
        prog="nnunet-fm", description="Any foundation encoder, frozen, inside stock nnU-Net."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    trainers_path.add_command(commands)
    exec_command.add_command(commands)
    predict.add_command(commands)
    encoders.add_command(commands)
    _add_plan(commands)
    info.add_command(commands)
    export.add_command(commands)
    convert.add_command(commands)
    demo.add_command(commands)
    features.add_command(commands)
    _add_groups(commands)
    sweep.add_command(commands)
    evaluate.add_command(commands)
    robustness.add_command(commands)
    report.add_command(commands)
    doctor.add_command(commands)
    return parser


def _add_groups(commands: Commands) -> None:
    _, group = add_group(
        commands,
        "heads",
        "classification, regression, survival on cached features: list, run, compare, ...",
    )
    heads.add_commands(group)
    _, group = add_group(
        commands,
        "analyse",
        "representations of frozen encoders: cka, similarity",
        aliases=["analyze"],
    )
    analyze.add_commands(group)
    _, group = add_group(
        commands,
        "pretrain",
        "train an encoder on unlabelled MRI: prepare, run, export, probe",
    )
    pretrain.add_commands(group)


def _add_plan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    plan = commands.add_parser(
        "plan", help="write plans FM_<encoder> from the dataset's nnU-Net plans"
    )
    plan.add_argument("-d", required=True, metavar="ID", help="dataset id or name")
    plan.add_argument(
        "-c", default="2d", metavar="CONFIGURATION", help="stock configuration to inherit from"
    )
    plan.add_argument(
        "--encoder", required=True, metavar="NAME|FILE|none", help="none: stock nnU-Net on a subset"
    )
    plan.add_argument(
        "--card", help="weight card of the file, where it cannot be told from the file"
    )
    plan.add_argument("--preset", help="a file of plans/, e.g. 2d_fm512")
    plan.add_argument("--patch", type=int, nargs="+", metavar="N", help="side(s) in pixels")
    plan.add_argument(
        "--fov", choices=("native", "fit"), help="keep the spacing, or resample to fit the patch"
    )
    plan.add_argument(
        "--taps", type=block_numbers, metavar="2,5,8,11", help="blocks whose features are decoded"
    )
    plan.add_argument("--fusion", help="learnable, fixed or learnable_then_fixed(EPOCHS)")
    plan.add_argument("--decoder", help="slices: primus, light; volumes: unetr, primus3d, pyramid")
    plan.add_argument(
        "--intensity", choices=("encoder", "stock"), default="encoder", help="whose normalisation"
    )
    plan.add_argument(
        "--mix-slices", type=int, metavar="K", help="2.5-D: 3 or 5 neighbouring slices (1: none)"
    )
    plan.add_argument("--batch-size", type=int)
    plan.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="e.g. qkv_bias=true"
    )
    plan.add_argument(
        "--seed", type=int, help="of random weights, where NAME has no file; default 0"
    )
    plan.add_argument(
        "--train-ratio", type=float, default=1.0, help="share of the training cases, e.g. 0.1"
    )
    plan.add_argument("--subset-seed", type=int, default=42)
    plan.add_argument("--subset-rule", default="nested", choices=("nested", "reference"))
    plan.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans to start from")
    plan.add_argument("-o", metavar="IDENTIFIER", help="name of the plans to write")
    plan.set_defaults(function=_plan)


def _plan(parsed: argparse.Namespace) -> None:
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    from nnunet_fm.encoders.registry import parse_options
    from nnunet_fm.nnunet.plan_options import PlanRequest
    from nnunet_fm.nnunet.planning import write_plans
    from nnunet_fm.nnunet.train_subset import TrainSubset

    root = folders.nnunet_folder("nnUNet_preprocessed")
    if not parsed.d.startswith("Dataset") and not parsed.d.isdecimal():
        raise InputError(
            f"dataset {parsed.d!r}; allowed: an id such as 8, or a name such as Dataset008_BraTS21"
        )
    dataset = maybe_convert_to_dataset_name(int(parsed.d) if parsed.d.isdecimal() else parsed.d)
    subset = TrainSubset(parsed.train_ratio, parsed.subset_seed, parsed.subset_rule)
    request = PlanRequest(
        base=parsed.c,
        encoder=parsed.encoder,
        card=parsed.card,
        preset=parsed.preset,
        patch=tuple(parsed.patch) if parsed.patch else None,
        fov=parsed.fov,
        taps=parsed.taps,
        fusion=parsed.fusion,
        decoder=parsed.decoder,
        batch_size=parsed.batch_size,
        seed=parsed.seed,
        options=parse_options(parsed.option),
        intensity=parsed.intensity,
        mix_slices=parsed.mix_slices,
        subset=subset,
        source_plans=parsed.p,
        output=parsed.o,
    )
    written = write_plans(root / dataset, request)
    print(f"wrote {written.path}\n{written.summary}")
