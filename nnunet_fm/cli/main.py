"""The command `nnunet-fm`: its parser, and how errors are reported.

Commands import torch and nnU-Net when they run, so that `--help` answers at once.
"""

import argparse
import io
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool

import nnunet_fm_pretrain.cli as pretrain
from nnunet_fm.cli import (
    analyse,
    convert,
    demo,
    doctor,
    encoders,
    evaluate,
    export,
    features,
    heads,
    info,
    plan,
    predict,
    report,
    robustness,
    sweep,
    trainers_path,
)
from nnunet_fm.cli import exec as exec_command
from nnunet_fm.cli.parser import CommandParser, Commands, add_group
from nnunet_fm.internal.errors import UserError
from nnunet_fm.internal.extras import EXTRAS, install_command

USER_ERROR, BUG = 2, 1  # exit codes
TORCH_JIT = "ignore:`torch.jit:FutureWarning"  # torch warns of its own deprecated functions
LESS = "rerun with fewer processes (-np 1) or a smaller batch"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: arguments of `nnunet-fm`; those of this process if None.

    Returns:
        Exit code: 2 after an error that the user can fix (one message), 1 after any other error
        (a traceback), else the command's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no `±`
    warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
    if TORCH_JIT not in sys.warnoptions:
        sys.warnoptions.append(TORCH_JIT)  # worker processes take it over when they start
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
            return f"this command needs {package}; type: {install_command(package)}"
    if isinstance(error, BrokenProcessPool) or "DataLoader worker" in str(error):
        return f"a worker process was killed, usually for lack of memory ({error}); {LESS}"
    if type(error).__name__ == "OutOfMemoryError":  # torch's; torch is not imported here
        return f"out of memory: {str(error).splitlines()[0]}; {LESS}"
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
    plan.add_command(commands)
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
    analyse.add_commands(group)
    _, group = add_group(
        commands,
        "pretrain",
        "train an encoder on unlabelled MRI: prepare, run, export, probe",
    )
    pretrain.add_commands(group)
