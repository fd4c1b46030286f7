"""The command `nnunet-fm`: its parser, and how errors are reported.

Commands import torch and nnU-Net when they run, so that `--help` answers at once.
"""

import argparse
import errno
import io
import os
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
    terminal,
    trainers_path,
)
from nnunet_fm.cli import exec as exec_command
from nnunet_fm.cli.parser import CommandParser, Commands, add_group
from nnunet_fm.internal.errors import UserError, is_torch_out_of_memory
from nnunet_fm.internal.extras import EXTRAS, install_command

USER_ERROR, BUG = 2, 1  # exit codes
CLOSED_PIPE = 141  # exit code of a shell: 128 and the signal
TORCH_JIT = "ignore:`torch.jit:FutureWarning"  # torch warns of its own deprecated functions
LESS = "rerun with fewer processes or a smaller batch"
ADVICE = {
    errno.ENOSPC: "free disk space, then rerun the command",
    errno.EDQUOT: "free disk space, then rerun the command",
    errno.EROFS: "this disk cannot be written to; give a folder on another one",
    errno.EACCES: "change its permissions, or give another file or folder",
    errno.EPERM: "change its permissions, or give another file or folder",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    errno.ENAMETOOLONG: "give a shorter name",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: arguments of `nnunet-fm`; those of this process if None.

    Returns:
        Exit code: 2 after an error that the user can fix (one message), 1 after any other error
        (a traceback), 130 after Ctrl-C, 141 where the reader of the output closed it, else the
        command's own.

    Raises:
        SystemExit: `--help` (code 0).
    """
    if arguments is None:
        terminal.set_up()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no `±`
    warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
    if TORCH_JIT not in sys.warnoptions:
        sys.warnoptions.append(TORCH_JIT)  # worker processes take it over when they start
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_reporting_errors(lambda: _run(words), "--debug" in words)


def _run(words: Sequence[str]) -> int | None:
    terminal.check_folder()
    parsed = parse(words)
    code: int | None = parsed.function(parsed)
    sys.stdout.flush()
    return code


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    A command that takes `KEY=VALUE` overrides takes them behind its options too, which argparse
    alone does not allow; a command with `unknown_arguments` gets what it does not know itself.

    Raises:
        InputError: words that are not allowed.
        SystemExit: `--help` (code 0).
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
    except KeyboardInterrupt:
        print("nnunet-fm: stopped", file=sys.stderr)
        return terminal.INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and terminal.reader_is_gone():
            return CLOSED_PIPE
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
        return _system_message(error)
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".")[0]
        if package in EXTRAS:
            return f"this command needs {package}; type: {install_command(package)}"
    if isinstance(error, BrokenProcessPool) or "DataLoader worker" in str(error):
        return f"a worker process was killed, usually for lack of memory ({error}); {LESS}"
    if is_torch_out_of_memory(error):
        return f"out of memory: {str(error).splitlines()[0]}; {LESS}"
    if isinstance(error, MemoryError):
        return f"out of memory: {str(error) or 'the input is too large'}; {LESS}"
    if isinstance(error, UnicodeError):
        return f"text that is not UTF-8: {error}; save the file as UTF-8"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply; with --debug the traceback shows where"
    return None


def _system_message(error: OSError) -> str:
    """Name the file and the reason that the operating system gives, and what helps."""
    reason = (error.strerror or str(error)).lower()
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if _is_name(name)]
    advice = ADVICE.get(error.errno or 0)
    message = f"{' and '.join(names)}: {reason}" if names else reason
    return f"{message}; {advice}" if advice else message


def _is_name(name: object) -> bool:
    return isinstance(name, (str, bytes))


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
