"""The demo's folder, and its commands with their logs."""

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from nnunet_fm.internal.errors import ExistingFileError, FailedRunError
from nnunet_fm.internal.messages import some
from nnunet_fm.internal.programs import ending_with_us
from nnunet_fm.nnunet.commands import command, environment, log_tail
from nnunet_fm.nnunet.datasets import FOLDERS

OURS = ".nnunet-fm"  # how the names of markers and locks begin
MARKER = f"{OURS}-demo"  # only a folder that holds it is cleared
OUTPUTS = ("logs", "brats", "test", "imagesTs", "predictions", "scores", "overlays.png")
EPOCHS = 12
REGIONS = ("WT", "TC", "ET")


def check_folder(out: Path) -> None:
    """Refuse to clear a folder that holds something else than a demo.

    Raises:
        FileExistsError: it does.
    """
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    theirs = [name for name in names if not name.startswith(".")]  # ours, or of a file manager
    if not theirs:
        return
    if MARKER not in names:
        raise ExistingFileError(
            f"{out} is not empty and not a demo; give another folder: -o FOLDER"
        )
    theirs = sorted({*theirs} - {*OUTPUTS, *FOLDERS})
    if theirs:
        raise ExistingFileError(
            f"{out} holds a demo and {some(theirs)}, which the demo did not write; move that "
            "elsewhere, or give another folder: -o FOLDER"
        )


class StepRunner:
    """Runs the demo's commands one after the other, each with its own log.

    Args:
        out: folder of the demo, see `check_folder`; an earlier demo in it is removed.
    """

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).touch()
        _remove_demo(out)
        self.logs = out / "logs"
        self.logs.mkdir()
        self.count = 0
        self.environment = environment() | {name: str(out / name) for name in FOLDERS}
        self.environment |= {
            "nnUNet_n_proc_DA": "2",
            "nnUNet_def_n_proc": "2",
            "PYTHONUNBUFFERED": "1",
        }

    def announce(self, what: str) -> None:
        """Count a step and print what it does."""
        self.count += 1
        print(f"[{self.count}] {what}", flush=True)

    def run(self, what: str, argv: Sequence[object], show_output: bool = False) -> None:
        """Run one command, print its progress, and print its output at the end if asked.

        Raises:
            RuntimeError: it failed; the message holds the end of its log.
        """
        words = [str(word) for word in argv]
        self.announce(f"{what}\n    $ {' '.join(words)}")
        log = self.logs / f"{self.count}_{words[0]}.log"
        started = time.monotonic()
        if self._run_logged(command(words), log):
            raise FailedRunError(f"`{' '.join(words)}` failed; {log_tail(log)}")
        if show_output:
            print(log.read_text(encoding="utf-8"))
        print(f"    {time.monotonic() - started:.0f} s", flush=True)

    def _run_logged(self, argv: Sequence[str], log: Path) -> int:
        process = subprocess.Popen(
            ending_with_us(argv),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=self.environment,
        )
        with log.open("w", encoding="utf-8") as stream, process:
            for line in process.stdout or ():
                stream.write(line)
                shown = progress_line(line)
                if shown:
                    print(f"    {shown}", flush=True)
        return process.returncode


def _remove_demo(out: Path) -> None:
    """Remove what a demo writes, except its marker and its lock."""
    for name in (*OUTPUTS, *FOLDERS):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)


def progress_line(line: str) -> str:
    """Shorten a line of a log to what is printed of it: encoder, epoch, Dice; else empty."""
    text = line.split(": ", 1)[-1].strip()
    if re.match(r"Epoch \d+$", text):
        return f"{text} of {EPOCHS - 1}"
    if "Pseudo dice" in text:
        values = re.findall(r"float32\(([\d.]+|nan)\)", text)
        scores = [f"{name} {value}" for name, value in zip(REGIONS, values, strict=False)]
        return f"validation patches, Dice {', '.join(scores)}"
    return text if "tensor hash" in text else ""
