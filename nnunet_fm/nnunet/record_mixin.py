"""The trainer's side of `fold_N/nnunet_fm.json`."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed

from nnunet_fm.internal import device as devices
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.file_names import (
    FINAL_CHECKPOINT,
    FORMER_CHECKPOINT,
    SPLITS_JSON,
    SUMMARY_JSON,
)
from nnunet_fm.nnunet.orientations import label_orientations
from nnunet_fm.nnunet.predictor import bare_network
from nnunet_fm.nnunet.run_record import (
    RunRecord,
    read_record,
    rounding_differences,
    write_record,
)
from nnunet_fm.nnunet.splits import ALL
from nnunet_fm.nnunet.training_data import data_differences, train_labels
from nnunet_fm.nnunet.training_log import read_0_1_record
from nnunet_fm.nnunet.training_seed import TRAINING_SEED

DISTRIBUTIONS = ("nnunet-fm", "nnunetv2", "torch", "timm")


class RecordRunMixin:
    """Records what a fold is trained with and what that costs; see `RunRecord`.

    The record is written at the start, after every epoch and at the end, and is continued by
    `--c`. The log carries the same facts for readers.

    Attributes:
        record: the record so far.
        precision: of the forward pass; None for nnU-Net's own.
        gradient_checkpointing: whether the encoder's activations are recomputed.
        loaded_checkpoint: name of the checkpoint whose weights the network has.
    """

    record = RunRecord()
    precision: str | None = None
    gradient_checkpointing = False
    loaded_checkpoint = FINAL_CHECKPOINT

    def encoder_record(self) -> tuple[str, str]:
        """Name the encoder's weights and give the hash of its tensors; empty without an encoder."""
        return "", ""

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Load a checkpoint, and keep its name for the record of the validation."""
        super().load_checkpoint(filename_or_checkpoint)  # type: ignore[misc]
        if isinstance(filename_or_checkpoint, str):
            self.loaded_checkpoint = Path(filename_or_checkpoint).name

    def on_train_start(self) -> None:
        """Begin or continue the record.

        Raises:
            ValueError: a training is resumed with other cases or labels.
        """
        trainer = cast(nnUNetTrainer, self)
        if not trainer.was_initialized:
            trainer.initialize()
        self.record = self._record_at_start()
        if trainer.current_epoch == 0 and trainer.local_rank == 0:
            self._put_former_aside()
        total = self.record.parameters
        learned = self.record.learned_parameters
        trainer.print_to_log_file(
            f"{total:,} parameters, {learned:,} learn ({100 * learned / total:.2f} %)"
        )
        latest = RunRecord(versions=self.record.versions[-1:])
        trainer.print_to_log_file(f"versions: {latest.versions_text}")
        self._report_rounding()
        super().on_train_start()  # type: ignore[misc]
        self._write_record()

    def on_epoch_end(self) -> None:
        """Add the epoch to the record."""
        super().on_epoch_end()  # type: ignore[misc]
        self._write_record()

    def on_train_end(self) -> None:
        """Report the peak memory of the training, without the validation that follows."""
        trainer = cast(nnUNetTrainer, self)
        super().on_train_end()  # type: ignore[misc]
        self.loaded_checkpoint = FINAL_CHECKPOINT
        self._write_record()
        trainer.print_to_log_file(
            f"peak memory: {self.record.peak_memory_bytes} bytes ({self.record.peak_memory_of})"
        )

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate, and record which checkpoint was.

        Raises:
            ValueError: the run was trained on a case that it would validate.
        """
        trainer = cast(nnUNetTrainer, self)
        fold = Path(trainer.output_folder)
        record = self.record if self.record.versions else self._former_record()
        _, cases = trainer.do_split()
        seen = sorted(record.train_labels.keys() & set(cases))
        if seen and trainer.fold != ALL:
            raise InputError(
                f"{fold} was trained on {some(seen)}, which fold {trainer.fold} of "
                f"{SPLITS_JSON} now validates; restore the file that it was trained with"
            )
        if trainer.local_rank == 0:
            (fold / SUMMARY_JSON).unlink(missing_ok=True)  # of a former validation
        super().perform_actual_validation(save_probabilities)  # type: ignore[misc]
        if trainer.local_rank == 0 and record.versions:
            write_record(replace(record, validated=self.loaded_checkpoint), fold)

    def _report_rounding(self) -> None:
        """Say whether a seeded training is still bit-equal to one that was never interrupted."""
        record = self.record
        if record.training_seed is not None and record.not_repeatable:
            cast(nnUNetTrainer, self).print_to_log_file(
                "WARNING: this training is no longer bit-equal to one that was never interrupted: "
                + "; ".join(record.not_repeatable)
            )

    def _former_record(self) -> RunRecord:
        """Read what an earlier process recorded; nothing if the file is damaged."""
        trainer = cast(nnUNetTrainer, self)
        fold = Path(trainer.output_folder)
        try:
            return read_record(fold) or read_0_1_record(fold)
        except InputError as error:  # the record only describes the run
            trainer.print_to_log_file(f"the former record is not readable: {error}")
            return RunRecord()

    def _put_former_aside(self) -> None:
        """Keep a former training's final checkpoint and validation from passing for this one's."""
        fold = Path(cast(nnUNetTrainer, self).output_folder)
        (fold / SUMMARY_JSON).unlink(missing_ok=True)
        if (fold / FINAL_CHECKPOINT).is_file():
            (fold / FINAL_CHECKPOINT).replace(fold / FORMER_CHECKPOINT)

    def _record_at_start(self) -> RunRecord:
        """Collect what is known before the first step; a resumed training keeps its history."""
        trainer = cast(nnUNetTrainer, self)
        former = self._former_record() if trainer.current_epoch > 0 else RunRecord()
        cases, _ = trainer.do_split()
        dataset = Path(trainer.preprocessed_dataset_folder_base)
        ending = trainer.dataset_json["file_ending"]
        labels = train_labels(dataset, cases, ending)
        different = data_differences(former.train_labels, labels)
        if different:
            raise InputError(
                f"{trainer.output_folder} was trained on other data ({different}); restore them, "
                "or train from the beginning, without --c"
            )
        versions = {name: version(name) for name in DISTRIBUTIONS}
        on_gpu = trainer.device.type == "cuda"
        encoder, sha256 = self.encoder_record()
        network = bare_network(trainer.network)
        if isinstance(network, FrozenEncoderNetwork):
            parameters = list(network.used_parameters())
        else:
            parameters = list(network.parameters())
        record = RunRecord(
            versions=(*(v for v in former.versions if v != versions), versions),
            parameters=sum(p.numel() for p in parameters),
            learned_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            encoder=encoder,
            encoder_sha256=sha256,
            precision=self.precision or ("float16" if on_gpu else "float32"),
            device=torch.cuda.get_device_name(trainer.device) if on_gpu else trainer.device.type,
            gradient_checkpointing=self.gradient_checkpointing,
            peak_memory_bytes=former.peak_memory_bytes,
            peak_memory_of="GPU" if on_gpu else "process",
            epochs=trainer.num_epochs,
            train_labels=labels,
            orientations=label_orientations(dataset, labels, ending),
            training_seed=trainer.plans_manager.plans.get(TRAINING_SEED),
            threads=torch.get_num_threads(),
            ranks=distributed.get_world_size() if trainer.is_ddp else 1,
        )
        if not former.versions:
            return record
        rounding = (*former.not_repeatable, *rounding_differences(former, record))
        return replace(record, not_repeatable=tuple(dict.fromkeys(rounding)))

    def _write_record(self) -> None:
        trainer = cast(nnUNetTrainer, self)
        # nnU-Net's checkpoints carry these, so they hold the epochs before a resume too
        starts = trainer.logger.get_value("epoch_start_timestamps", step=None)
        ends = trainer.logger.get_value("epoch_end_timestamps", step=None)
        self.record = replace(
            self.record,
            epoch_seconds=tuple(
                round(float(end - start), 2) for start, end in zip(starts, ends, strict=False)
            ),
            peak_memory_bytes=max(
                self.record.peak_memory_bytes, devices.peak_memory(trainer.device)
            ),
        )
        if trainer.local_rank == 0:
            write_record(self.record, Path(trainer.output_folder))
