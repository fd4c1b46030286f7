"""Read what a run cost, and what it was made with, from the files in its folder."""

from dataclasses import dataclass

from nnunet_fm.experiments.runs import Run
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.nnunet.dataset_files import read_plans
from nnunet_fm.nnunet.encoder_in_plans import describe_encoder, encoder_source, uses_tokens
from nnunet_fm.nnunet.file_names import DEBUG_JSON, FINAL_CHECKPOINT, PLANS_JSON
from nnunet_fm.nnunet.run_record import RunRecord, read_record
from nnunet_fm.nnunet.train_subset import TrainSubset
from nnunet_fm.nnunet.training_log import read_0_1_record, read_progress


@dataclass(frozen=True)
class Cost:
    """What a run cost; 0 where it is unknown (trainers that are not nnunet-fm's).

    Attributes:
        run: name of the run.
        encoder: name of the encoder in the sweep.
        parameters: number of parameters of the network.
        learned: number of trainable parameters.
        epochs: number of finished epochs.
        seconds: duration of the epochs, without the validation at the end.
        peak_bytes: peak memory during training, bytes.
        peak_of: what it was measured on: `GPU` or `process`.
        checkpoint_bytes: size of the final checkpoint.
    """

    run: str
    encoder: str
    parameters: int
    learned: int
    epochs: int
    seconds: float
    peak_bytes: int
    peak_of: str
    checkpoint_bytes: int


@dataclass(frozen=True)
class Provenance:
    """How a run was made.

    Attributes:
        run: name of the run.
        state: how far it has come.
        command: the command that trains it.
        encoder: card and origin of the encoder's weights; empty for stock nnU-Net.
        sha256: hash of the encoder's tensors; empty for stock nnU-Net.
        ratio: share of the training cases.
        seed: seed of the subset.
        rule: rule of the subset.
        versions: versions of nnunet-fm, nnU-Net, torch and timm.
        device: device that it was trained on.
        training_seed: seed of the training, and why the run is not bit-equal to one that was never
            interrupted if it is not; empty without a seed.
    """

    run: str
    state: str
    command: str
    encoder: str
    sha256: str
    ratio: float
    seed: int
    rule: str
    versions: str
    device: str
    training_seed: str


def cost_of(run: Run) -> Cost:
    """Read the cost of a run."""
    record = _record(run)
    progress = read_progress(run.folder)
    final = run.folder / FINAL_CHECKPOINT
    return Cost(
        run=run.name,
        encoder=run.encoder,
        parameters=record.parameters,
        learned=record.learned_parameters,
        epochs=record.epochs_done or progress.epoch,
        seconds=record.total_seconds or progress.seconds,
        peak_bytes=record.peak_memory_bytes,
        peak_of=record.peak_memory_of,
        checkpoint_bytes=final.stat().st_size if final.is_file() else 0,
    )


def provenance_of(run: Run) -> Provenance:
    """Read how a run was made; most fields are empty before it is started."""
    plans_file = run.folder.parent / PLANS_JSON
    debug_file = run.folder / DEBUG_JSON
    plans = read_plans(plans_file) if plans_file.is_file() else {}
    facts = read_object(debug_file) if debug_file.is_file() else {}
    source = encoder_source(plans, run.configuration)
    subset = TrainSubset.from_plans(plans)
    encoder = describe_encoder(source, uses_tokens(plans, run.configuration))
    gpu = str(facts.get("gpu_name", "None"))
    record = _record(run)
    return Provenance(
        run=run.name,
        state=run.state().value,
        command=" ".join(run.train_command()),
        encoder=encoder,
        sha256="" if source is None else source.sha256,
        ratio=subset.ratio if plans else run.ratio,
        seed=subset.seed if plans else run.seed,
        rule=subset.rule,
        versions=record.versions_text,
        device=str(facts.get("device", "")) if gpu == "None" else gpu,
        training_seed=_training_seed(record, run.training_seed),
    )


def _training_seed(record: RunRecord, seed: int | None) -> str:
    if seed is None:
        return ""
    if not record.not_repeatable:
        return str(seed)
    return f"{seed}, not bit-equal: {'; '.join(record.not_repeatable)}"


def _record(run: Run) -> RunRecord:
    return read_record(run.folder) or read_0_1_record(run.folder)
