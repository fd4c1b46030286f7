"""The log of a run: a CSV file, TensorBoard and a progress bar."""

import csv
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from nnunet_fm.internal.atomic_files import write_text

LOG = "log.csv"


class RunLog:
    """Means over the steps since the last line, written every few steps.

    Args:
        run: folder of the run.
        first_step: where the run starts or resumes; later lines of an earlier start are removed.
        steps: of the whole run.
        every: steps between lines.
        batch_size: samples per step, over all ranks.
        active: whether this process writes; False on all ranks but the first.
    """

    def __init__(
        self, run: Path, first_step: int, steps: int, every: int, batch_size: int, active: bool
    ) -> None:
        self.active, self.every = active, every
        self.batch_size, self.steps = batch_size, steps
        self._start_line()
        if active:
            from torch.utils.tensorboard import SummaryWriter

            self._former_hook = threading.excepthook
            threading.excepthook = _print_unless_raised_again
            self.path = run / LOG
            self._drop_lines_from(first_step)
            self.board = SummaryWriter(str(run / "tensorboard"), purge_step=first_step)
            self.bar = tqdm(
                total=steps, initial=first_step, desc="pretraining", unit="step", mininterval=1.0
            )

    def step(
        self, step: int, values: Mapping[str, float], waited: float
    ) -> dict[str, float] | None:
        """Add the values of a step; return the means when a line is due.

        Args:
            step: number of the step, from 0.
            values: what is logged; names may differ from step to step.
            waited: seconds that the step waited for its batch.
        """
        for name, value in values.items():
            self.sums[name] += value
            self.counts[name] += 1
        self.steps_in_line += 1
        self.waited += waited
        if self.active:
            self.bar.update()
        if (step + 1) % self.every and step + 1 != self.steps:
            return None
        seconds = time.perf_counter() - self.started
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        means["samples_per_s"] = self.batch_size * self.steps_in_line / seconds
        means["data_wait"] = self.waited / seconds
        self._start_line()
        if self.active:
            self._write(step, means)
        return means

    def close(self) -> None:
        """Flush everything."""
        if self.active:
            self.bar.close()
            try:
                self.board.close()
            finally:
                threading.excepthook = self._former_hook

    def print(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self.active:
            self.bar.write(text)

    def _start_line(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.steps_in_line = 0
        self.waited = 0.0
        self.started = time.perf_counter()

    def _write(self, step: int, means: Mapping[str, float]) -> None:
        row = {"step": str(step), **{name: f"{value:.6g}" for name, value in means.items()}}
        columns = self._columns(row)
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, columns, restval="").writerow(row)
        for name, value in means.items():
            self.board.add_scalar(name, value, step)
        speed = means["samples_per_s"]
        self.bar.set_postfix_str(f"loss {means['loss']:.3f}, {speed:.0f} samples/s")

    def _columns(self, row: Mapping[str, str]) -> list[str]:
        """Return the file's columns, after adding those of `row` that it lacks."""
        columns: list[str] = []
        lines: list[dict[str, str]] = []
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as stream:
                reader = csv.DictReader(stream)
                columns = list(reader.fieldnames or ())
                lines = list(reader)
        added = [name for name in row if name not in columns]
        if added:
            columns += added
            with self.path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, columns, restval="")
                writer.writeheader()
                writer.writerows(lines)
        return columns

    def _drop_lines_from(self, step: int) -> None:
        if not self.path.is_file():
            return
        header, *lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        kept = []
        for line in lines:
            number = line.split(",")[0]
            if number.isdigit() and int(number) < step:
                kept.append(line)
        if header and kept:
            write_text(self.path, header + "".join(kept))
        else:
            self.path.unlink()


def _print_unless_raised_again(arguments: threading.ExceptHookArgs) -> None:
    """Print the error of a thread, unless it is TensorBoard's writer.

    The next call of its `SummaryWriter` raises that error again, e.g. of a full disk.
    """
    if not type(arguments.thread).__module__.startswith("tensorboard"):
        threading.__excepthook__(arguments)
