"""A sweep as strict data: datasets x encoders x ratios x seeds x training seeds x folds."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, field_validator, model_validator

from nnunet_fm.experiments.datasets import Expected, Splits
from nnunet_fm.internal.config import Count, Fraction, Name, Part, Positive, Seed, read_settings
from nnunet_fm.internal.errors import InputError
from nnunet_fm.nnunet.plan_options import ConfigurationOptions, Device

CONFIGS = Path(__file__).parent / "configs"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
MAX_PARALLEL = ("max_parallel", "at_a_time")  # the latter in sweeps of version 0.1
UNIQUE_KEYS = ("datasets", "ratios", "seeds", "training_seeds", "folds", "gpus")


class EncoderEntry(ConfigurationOptions):
    """One encoder, or stock nnU-Net: the options of `nnunet-fm plan`, and a trainer."""

    trainer: Name | None = Field(
        None, description="-tr (default: FrozenDinoTrainer, or SubsetTrainer without an encoder)"
    )


class Sweep(Part):
    """A sweep: every combination of datasets, encoders, ratios, both seeds and folds is one run.

    Attributes:
        datasets: nnU-Net's dataset ids.
        encoders: entries by name (letters, digits and `_`); `null` removes an entry of a shipped
            sweep.
        ratios: shares of the training cases, above 0 to 1.
        seeds: seeds of the subsets.
        training_seeds: seeds of the trainings, see `TrainingSeed`; if empty, nnU-Net draws without
            one. Encoders with one patch and batch size see the same patches with the same
            augmentation.
        folds: folds of nnU-Net's cross-validation.
        splits: how the cases are divided into folds; if None, the dataset's own folds, or those
            that nnU-Net draws.
        expected: what each dataset must have, by id.
        device: `cpu`, `cuda` or `mps`.
        max_parallel: number of runs in parallel on this machine; default: one for each of `gpus`,
            else 1. On the CPU they share its cores.
        gpus: numbers of the GPUs to use, one for each parallel run in turn; if empty, every run
            sees all GPUs.
        processes: number of processes of nnU-Net's augmentation and preprocessing in each run.
        slurm: options of sbatch, e.g. `{partition: gpu, time: 2880, gpus_per_node: 1}`; `time`
            (minutes) is required.
    """

    datasets: Annotated[tuple[Positive, ...], Field(min_length=1)]
    encoders: Annotated[dict[str, EncoderEntry], Field(min_length=1)]
    ratios: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (1.0,)
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (42,)
    training_seeds: tuple[Seed, ...] = ()
    folds: Annotated[tuple[Count, ...], Field(min_length=1)] = (0,)
    splits: Splits | None = None
    expected: dict[int, Expected] = Field(default_factory=dict)
    device: Device = "cuda"
    max_parallel: Positive = Field(1, validation_alias=AliasChoices(*MAX_PARALLEL))
    gpus: tuple[Count, ...] = ()
    processes: Positive | None = None
    slurm: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _use_every_gpu(cls, values: Any) -> Any:
        """Train one run on each GPU, unless the sweep says otherwise."""
        if not isinstance(values, dict) or not isinstance(values.get("gpus"), (list, tuple)):
            return values
        if not values["gpus"] or set(MAX_PARALLEL) & set(values):
            return values
        return {**values, "max_parallel": len(values["gpus"])}

    @field_validator("encoders", "expected", mode="before")
    @classmethod
    def _remove_null_entries(cls, entries: Any) -> Any:
        if entries is None:
            return {}
        if not isinstance(entries, dict):
            return entries
        return {key: entry for key, entry in entries.items() if entry is not None}

    @model_validator(mode="after")
    def _check_runs_differ(self) -> "Sweep":
        for key in UNIQUE_KEYS:
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise InputError(
                    f"{key} names a value twice: {list(values)}; two runs would be one"
                )
        for name in self.encoders:
            if not NAME.fullmatch(name):
                raise InputError(
                    f"encoder name {name!r}; allowed: letters, digits and _, e.g. braindino_b16"
                )
        return self

    @model_validator(mode="after")
    def _check_combinations(self) -> "Sweep":
        if self.splits and self.splits.file and len(self.datasets) > 1:
            raise InputError(
                f"splits.file with {len(self.datasets)} datasets; allowed: one, whose cases it "
                "names"
            )
        if self.gpus and self.device != "cuda":
            raise InputError(
                f"gpus {list(self.gpus)} with device {self.device}; remove gpus, or give "
                "device: cuda"
            )
        return self


def read_sweep(name: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep and change single keys of it, see `read_settings`.

    Args:
        name: path of a YAML file, or name of a shipped sweep.
        overrides: `key=value`, values as in YAML.

    Raises:
        FileNotFoundError: unknown sweep; close matches are named.
        ValueError: an unknown key (close matches are named), or a value that is not allowed.
    """
    return read_settings(Sweep, name, CONFIGS, overrides)
