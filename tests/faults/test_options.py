"""Wrong values for every option of every command, derived from the parsers: see option_rows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import option_rows
from helpers.option_rows import Command, Samples
from nnunet_fm.cli import main as main_module

COMMANDS = option_rows.every_command()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return Samples.make(tmp_path_factory.mktemp("samples"))


@pytest.mark.parametrize("command", COMMANDS, ids=[" ".join(c.words) for c in COMMANDS])
def test_wrong_options_are_refused_in_a_sentence_that_names_them(
    command: Command, samples: Samples, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parser = main_module.build_parser()
    monkeypatch.setattr(main_module, "build_parser", lambda: parser)
    monkeypatch.chdir(tmp_path)
    rows = list(option_rows.rows(command, samples))
    problems = {row.argv: option_rows.problem(row) for row in rows}
    wrong = [f"{' '.join(argv)}: {found}" for argv, found in problems.items() if found]
    assert not wrong, "\n".join(wrong)
    assert not list(tmp_path.iterdir())  # nothing was begun


def test_wrong_options_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    program = (
        "import json, pathlib, sys; from helpers import option_rows; "
        "json.dump(option_rows.run_all(pathlib.Path(sys.argv[1])), sys.stdout)"
    )
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    count, wrong, imported = json.loads(done.stdout)
    assert count > 1900
    assert not wrong
    assert not imported
