"""What a training was made with and what it cost: `nnunet_fm.json` in the fold's folder."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import read_object

RECORD = "nnunet_fm.json"


@dataclass(frozen=True)
class RunRecord:
    """Facts about one fold's training, up to date after every epoch.

    Attributes:
        versions: of nnunet-fm, nnU-Net, torch and timm; one entry for each set of versions that
            trained this fold.
        parameters: of the network, without those of an encoder that is not computed.
        learned_parameters: those that are trained.
        encoder: the card of the encoder's weights and where they come from; empty for stock
            nnU-Net.
        encoder_sha256: hash of the encoder's tensors; empty for stock nnU-Net.
        precision: of the forward pass: `float32`, `bfloat16` or `float16`.
        device: `cpu`, `mps`, or the GPU's name.
        gradient_checkpointing: whether the encoder's activations are recomputed.
        peak_memory_bytes: most memory in use while training; 0 where the system does not report it.
        peak_memory_of: whose memory that is: `GPU` or `process`.
        epochs: that the trainer will run.
        epoch_seconds: duration of each finished epoch, without the validation at the end.
        train_labels: hash of the label file of each training case, see `train_labels`.
        orientations: how the training images are stored, e.g. `LPS`.
        validated: name of the checkpoint that was validated; empty before the validation.
        training_seed: of the plans; None if the training is not seeded.
        threads: number of torch's threads, on which the rounding of a CPU depends; 0 if unknown.
        ranks: number of DDP processes.
        not_repeatable: why a seeded training is not bit-equal to one that was never interrupted;
            empty if it is.
    """

    versions: tuple[dict[str, str], ...] = ()
    parameters: int = 0
    learned_parameters: int = 0
    encoder: str = ""
    encoder_sha256: str = ""
    precision: str = ""
    device: str = ""
    gradient_checkpointing: bool = False
    peak_memory_bytes: int = 0
    peak_memory_of: str = ""
    epochs: int = 0
    epoch_seconds: tuple[float, ...] = ()
    train_labels: dict[str, str] = field(default_factory=dict)
    orientations: tuple[str, ...] = ()
    validated: str = ""
    training_seed: int | None = None
    threads: int = 0
    ranks: int = 1
    not_repeatable: tuple[str, ...] = ()

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return len(self.epoch_seconds)

    @property
    def total_seconds(self) -> float:
        """Duration of all finished epochs."""
        return sum(self.epoch_seconds)

    @property
    def versions_text(self) -> str:
        """`nnunet-fm 0.1.0, torch 2.9.1`; several sets are joined by `then`."""
        sets = [", ".join(f"{name} {v}" for name, v in one.items()) for one in self.versions]
        return ", then ".join(dict.fromkeys(sets))


def rounding_differences(former: RunRecord, now: RunRecord) -> tuple[str, ...]:
    """List what makes a resumed training round in another way: `threads 2, now 4`.

    Args:
        former: record of the training so far.
        now: facts about the process that resumes it.
    """
    facts = {
        "device": (former.device, now.device),
        "precision": (former.precision, now.precision),
        "DDP processes": (former.ranks, now.ranks),
        "versions": (_latest_versions(former), _latest_versions(now)),
    }
    if now.device == "cpu":
        facts["threads"] = (former.threads, now.threads)
    return tuple(f"{name} {was}, now {now}" for name, (was, now) in facts.items() if was != now)


def _latest_versions(record: RunRecord) -> str:
    return RunRecord(versions=record.versions[-1:]).versions_text


def write_record(record: RunRecord, fold: Path) -> None:
    """Write a record into a fold's folder; a kill in between leaves the former one.

    Raises:
        OSError: the disk is full or not writable.
    """
    derived = {"epochs_done": record.epochs_done, "total_seconds": record.total_seconds}
    write_text(fold / RECORD, json.dumps(asdict(record) | derived, indent=1))


def read_record(fold: Path) -> RunRecord | None:
    """Read the record of a fold's folder; None if its trainer wrote none (nnU-Net's own, or 0.1).

    Raises:
        ValueError: the file is damaged.
    """
    file = fold / RECORD
    if not file.is_file():
        return None
    try:
        content = read_object(file)
        for name in ("versions", "epoch_seconds", "orientations", "not_repeatable"):
            content[name] = tuple(content.get(name, ()))
        return RunRecord(
            **{f.name: content[f.name] for f in fields(RunRecord) if f.name in content}
        )
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{file} is not a run record ({error}); remove it, or restore it from a copy"
        ) from None
