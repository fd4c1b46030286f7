"""The parser and the error boundary: quick help, one message or a traceback."""

import argparse
import errno
import importlib
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch

from nnunet_fm.cli import main as main_module
from nnunet_fm.cli.main import main, parse, run_reporting_errors
from nnunet_fm.internal.errors import InputError, OutOfMemoryError, UserError


@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["pretrain", "run", "-h"]])
def test_help_answers_without_torch(words: list[str]) -> None:
    program = (
        "import sys\n"
        "from nnunet_fm.cli.main import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "sys.exit(bool({'torch', 'nnunetv2', 'timm', 'matplotlib'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "-d", "7", "--encoder", "dinov3_test16"], "export nnUNet_preprocessed="),
        (["convert", "brats", ".", "-d", "5", "-n", "X"], "export nnUNet_raw="),
        (["evaluate", "gone", "gone", "--regions", "brats"], "argument predictions: gone does not"),
        (["evaluate", ".", "gone"], "argument truth: gone does not exist; allowed: a folder"),
        (["info", "--encoder", "dinov3_test16", "--patch", "250", "256"], "nearest possible"),
    ],
)
def test_errors_are_one_message(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(name, raising=False)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def fail(error: Exception) -> int:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        UserError("too few"),
        InputError("too few"),
        OutOfMemoryError("too few"),
        FileNotFoundError(2, "too few", "gone.csv"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_what_a_user_can_fix_is_one_message_and_a_traceback_on_request(
    error: Exception, debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_reporting_errors(lambda: fail(error), debug) == 2
    printed = capsys.readouterr().err
    assert "too few" in printed.splitlines()[-1]
    assert ("Traceback" in printed) == debug
    assert "this is a bug" not in printed


@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast"),
        RuntimeError("operands could not be broadcast"),
        OSError("operands could not be broadcast"),  # not of the operating system
        ModuleNotFoundError("operands could not be broadcast", name="operands"),
    ],
)
def test_a_bug_shows_its_traceback_and_asks_for_a_report(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_reporting_errors(lambda: fail(error)) == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "in fail" in printed
    assert "operands could not be broadcast" in printed
    assert "this is a bug. Please report it" in printed.splitlines()[-1]


def test_a_missing_package_of_an_extra_names_the_extra(capsys: pytest.CaptureFixture[str]) -> None:
    error = ModuleNotFoundError("No module named 'lightly.loss'", name="lightly.loss")
    assert run_reporting_errors(lambda: fail(error)) == 2
    printed = capsys.readouterr().err
    assert "pip install 'nnunet-fm[pretrain]'" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    "words",
    [
        ["--debug", "evaluate", "gone", "gone"],
        ["evaluate", "--debug", "gone", "gone"],
        ["evaluate", "gone", "gone", "--debug"],
        ["--debug", "predict", "-tr", "nnUNetTrainerr"],
        ["predict", "-tr", "nnUNetTrainerr", "--debug"],
        ["sweep", "gone.yaml", "--debug"],
        ["--debug", "sweep", "gone.yaml", "ratios=[1]"],
        ["exec", "--debug", "nnUNetv3_train"],
    ],
)
def test_debug_may_stand_anywhere(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "Traceback" in capsys.readouterr().err
    assert main([word for word in words if word != "--debug"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_planted_bug_in_a_command_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = importlib.import_module("nnunet_fm.network.summary")
    monkeypatch.setattr(summary, "network_info", lambda *_: [][0])
    assert main(["info", "--encoder", "dinov3_test16"]) == 1
    printed = capsys.readouterr().err
    assert "IndexError: list index out of range" in printed
    assert "in _info" in printed


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (group,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(group.choices)


@pytest.mark.parametrize(
    ("former", "name"), [("path", "trainers-path"), ("run", "exec"), ("analyze", "analyse")]
)
def test_former_names_of_commands_are_accepted(former: str, name: str) -> None:
    parsers = commands(main_module.build_parser())
    assert parsers[former] is parsers[name]


def test_former_names_of_options_are_accepted() -> None:
    for words in (["encoders", "verify", "."], ["features", "extract", ".", "--encoder", "e"]):
        for option in ("--option", "--encoder-option"):
            parsed = main_module.parse([*words, option, "a=1", option, "b=2"])
            assert parsed.encoder_options == ["a=1", "b=2"]


def test_unknown_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["doctor", "--fast"], ["sweep", "x.yaml", "--fast"], ["info", "--enc", "x"]):
        assert main(words) == 2
        assert f"unknown option '{words[-1] if '--enc' not in words else '--enc'}'" in (
            capsys.readouterr().err
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "bytes"], "bytes is not text in UTF-8"),
        (["sweep", "sweep.yaml", "ratios=["], "the value is not YAML"),
        (["evaluate", ".", ".", "--dataset-json", "list.json"], "is not a dataset.json of nnU-Net"),
        (["evaluate", ".", ".", "--regions", "brats", "-np", "1"], "cannot be read as an image"),
        (["sweep", "status", "damaged"], "runs.json is damaged"),
        (["encoders", "verify", "bytes"], "bytes"),
        (["features", "list", "--cache", "nowhere"], "is not a feature cache"),
        (["features", "list", "--cache", "cache"], "recipe.json is damaged"),
        (["predict", "-d", "99", "-c", "2d", "-i", ".", "-o", "out"], "no dataset 99"),
    ],
)
def test_damaged_files_are_one_message(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "case.nii.gz").write_bytes(b"not an image")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "sweep.yaml").write_text("{datasets: [7], encoders: {a: {}}}")
    (tmp_path / "cache" / "encoder-recipe").mkdir(parents=True)
    (tmp_path / "cache" / "encoder-recipe" / "recipe.json").write_text("{")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "runs.json").write_text('[{"a": 1}]')
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_counts_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--encoder", "dinov3_test16", "--classes", "-3"]) == 2
    assert "--classes: '-3'; allowed: a whole number from 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "x.yaml", "--dry-run"],
        ["sweep", "--dry-run", "x.yaml"],
        ["sweep", "-o", "out", "x.yaml", "ratios=[1]"],
        ["sweep", "--debug", "x.yaml"],
        ["sweep", "run", "x.yaml"],
    ],
)
def test_a_sweep_needs_no_sub_command(words: list[str]) -> None:
    assert str(parse(words).config) == "x.yaml"


@pytest.mark.parametrize(
    "error",
    [
        BrokenProcessPool("a process was terminated abruptly"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_lack_of_memory_is_not_a_bug(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_reporting_errors(lambda: fail(error)) == 2
    assert "fewer processes or a smaller batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.EROFS, "Read-only file system", "/x/y"),
            "/x/y: read-only file system; this",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            "y: no space left on device; free",
        ),
        (OSError(errno.EIO, "Input/output error"), "nnunet-fm: input/output error"),
        (MemoryError(), "out of memory: the input is too large; rerun"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "is not UTF-8"),
    ],
)
def test_errors_of_the_system_are_one_sentence(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_reporting_errors(lambda: fail(error)) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Errno" not in printed
    assert len(printed.splitlines()) == 1


def test_ctrl_c_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert run_reporting_errors(interrupted) == 130
    assert capsys.readouterr().err == "nnunet-fm: stopped\n"


def test_a_reader_that_closes_the_output_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main(["trainers-path"]) == 141
    assert not capsys.readouterr().err
