"""Programs that end with the process that started them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_fm.internal.processes import is_alive
from nnunet_fm.internal.programs import run_program

STARTS_ONE = """
from nnunet_fm.internal.programs import run_program
run_program(["sh", "-c", "echo $$; exec sleep 60"])
"""
SECONDS = 20


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot do it")
def test_a_program_ends_when_its_parent_is_killed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        process.kill()
    end = time.monotonic() + SECONDS
    while is_alive(program):
        assert time.monotonic() < end, "the program outlives its parent"
        time.sleep(0.05)


def test_output_and_code_are_those_of_the_program() -> None:
    done = run_program(["sh", "-c", "printf 'caf\\351'; exit 3"], capture_output=True)
    assert (done.stdout, done.stderr, done.returncode) == ("caf\ufffd", "", 3)
    done = run_program(["sh", "-c", "yes | head -n 1"], capture_output=True)
    assert (done.stdout, done.stderr, done.returncode) == ("y\n", "", 0)


def test_a_file_that_is_no_program_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").touch(0o755)
    done = run_program([str(tmp_path / "empty")], capture_output=True)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/empty: Exec format error\n"
