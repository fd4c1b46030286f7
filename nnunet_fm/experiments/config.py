"""A sweep as strict data: datasets x encoders x ratios x seeds x folds."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nnunet_fm.experiments.datasets import Expected, Splits
from nnunet_fm.internal.config import Part, read_settings
from nnunet_fm.internal.errors import InputError
from nnunet_fm.nnunet.plan_options import ConfigurationOptions, Count, Positive

CONFIGS = Path(__file__).parent / "configs"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")


class Arm(ConfigurationOptions):
    """One encoder, or stock nnU-Net: the options of `nnunet-fm plan`, and a trainer."""

    trainer: str | None = Field(
        None, description="-tr (default: FrozenDinoTrainer, or SubsetTrainer without an encoder)"
    )


class Sweep(Part):
    """What is run.

    Attributes:
        datasets: nnU-Net's ids.
        encoders: by a name of your own: letters, digits and `_`; `null` leaves one of a shipped
            sweep out.
        ratios: shares of the training cases.
        seeds: of the subsets.
        folds: of nnU-Net's cross-validation.
        splits: how the cases are divided into folds; as the dataset has it, or as nnU-Net draws it,
            if not given.
        expected: by dataset, what it must have.
        device: `cpu`, `cuda` or `mps`.
        at_a_time: runs on this machine at once, one for each of `gpus` if not given; on the CPU
            they share its cores.
        gpus: numbers of the GPUs that runs on this machine are given, one each, in turn; all see
            all if empty.
        processes: of nnU-Net's augmentation and preprocessing, for each run.
        slurm: what sbatch is told, e.g. `{partition: gpu, time: 2880, gpus_per_node: 1}`; `time`
            (minutes) is needed.
    """

    datasets: Annotated[tuple[Positive, ...], Field(min_length=1)]
    encoders: Annotated[dict[str, Arm], Field(min_length=1)]
    ratios: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (1.0,)
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (42,)
    folds: Annotated[tuple[Count, ...], Field(min_length=1)] = (0,)
    splits: Splits | None = None
    expected: dict[int, Expected] = Field(default_factory=dict)
    device: Literal["cpu", "cuda", "mps"] = "cuda"
    at_a_time: Positive = 1
    gpus: tuple[Count, ...] = ()
    processes: Positive | None = None
    slurm: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _a_run_for_each_gpu(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("gpus") and "at_a_time" not in given:
            return {**given, "at_a_time": len(given["gpus"])}
        return given

    @field_validator("encoders", "expected", mode="before")
    @classmethod
    def _without_what_is_null(cls, given: Any) -> Any:
        if given is None:
            return {}
        return (
            {k: v for k, v in given.items() if v is not None} if isinstance(given, dict) else given
        )

    @model_validator(mode="after")
    def _every_run_is_another(self) -> "Sweep":
        for key in ("datasets", "ratios", "seeds", "folds", "gpus"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise InputError(
                    f"{key} names a value twice: {list(values)}; two runs would be one"
                )
        strange = [name for name in self.encoders if not NAME.fullmatch(name)]
        if strange:
            raise InputError(
                f"encoder name {strange[0]!r}; allowed: letters, digits and _, e.g. braindino_b16"
            )
        if self.splits and self.splits.file and len(self.datasets) > 1:
            raise InputError(
                f"splits.file with {len(self.datasets)} datasets; allowed: one, whose cases it names"
            )
        if self.gpus and self.device != "cuda":
            raise InputError(
                f"gpus {list(self.gpus)} with device {self.device}; leave them out, or give device: cuda"
            )
        return self


def read_sweep(given: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep and change single keys of it, see `read_settings`.

    Raises:
        FileNotFoundError, ValueError: unknown file or key (close matches are named), or a value
        that is not allowed.
    """
    return read_settings(Sweep, given, CONFIGS, overrides)
