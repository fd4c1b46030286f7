"""What a run tells: a CSV file, TensorBoard, a progress bar."""

import csv
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

LOG = "log.csv"


class Progress:
    """Means over the steps since the last line, written every few steps; silent on ranks other than 0.

    Args:
        run: folder of the run.
        first_step: the run continues here; later lines of a former run are dropped.
        steps: of the whole run.
        every: steps between lines.
        slices: per step, over all ranks.
        active: whether this process writes.
    """

    def __init__(
        self, run: Path, first_step: int, steps: int, every: int, slices: int, active: bool
    ) -> None:
        self.active, self.every, self.slices, self.steps = active, every, slices, steps
        self.sums: dict[str, float] = defaultdict(float)
        self.count, self.waited, self.started = 0, 0.0, time.perf_counter()
        if active:
            from torch.utils.tensorboard import SummaryWriter

            self.path = run / LOG
            self._drop_lines_from(first_step)
            self.board = SummaryWriter(str(run / "tensorboard"), purge_step=first_step)
            self.bar = tqdm(
                total=steps, initial=first_step, desc="pretraining", unit="step", mininterval=1.0
            )

    def step(
        self, step: int, values: Mapping[str, float], waited: float
    ) -> dict[str, float] | None:
        """Take in one step; gives the line's means when one is due."""
        for name, value in values.items():
            self.sums[name] += value
        self.count, self.waited = self.count + 1, self.waited + waited
        if self.active:
            self.bar.update()
        if (step + 1) % self.every and step + 1 != self.steps:
            return None
        took = time.perf_counter() - self.started
        means = {name: total / self.count for name, total in self.sums.items()}
        means |= {"slices_per_s": self.slices * self.count / took, "data_wait": self.waited / took}
        self.sums.clear()
        self.count, self.waited, self.started = 0, 0.0, time.perf_counter()
        if self.active:
            self._write(step, means)
        return means

    def close(self) -> None:
        """Flush everything."""
        if self.active:
            self.bar.close()
            self.board.close()

    def say(self, text: str) -> None:
        """Print a line beside the bar."""
        if self.active:
            self.bar.write(text)

    def _write(self, step: int, means: Mapping[str, float]) -> None:
        new = not self.path.is_file()
        with self.path.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(["step", *means])
            writer.writerow([step, *(f"{v:.6g}" for v in means.values())])
        for name, value in means.items():
            self.board.add_scalar(name, value, step)
        self.bar.set_postfix_str(f"loss {means['loss']:.3f}, {means['slices_per_s']:.0f} slices/s")

    def _drop_lines_from(self, step: int) -> None:
        if not self.path.is_file():
            return
        header, *lines = self.path.read_text().splitlines(keepends=True) or [""]
        kept = [
            line
            for line in lines
            if line.split(",")[0].isdigit() and int(line.split(",")[0]) < step
        ]
        if header and kept:
            self.path.write_text(header + "".join(kept))
        else:
            self.path.unlink()
