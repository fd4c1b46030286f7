"""What a run cost, and with what it was made: from its logs and files."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_fm.experiments.runs import FINAL, Run
from nnunet_fm.nnunet.encoder_in_plans import encoder_source
from nnunet_fm.nnunet.train_subset import TrainSubset
from nnunet_fm.nnunet.training_log import read_progress

PARAMETERS = re.compile(r"([\d,]+) parameters, ([\d,]+) learn")
PEAK = re.compile(r"peak memory: (\d+) bytes \((\w+)\)")
VERSIONS = re.compile(r"versions: (.+)")


@dataclass(frozen=True)
class Cost:
    """What a run took; 0 where its log does not say (trainers that are not nnunet-fm's).

    Attributes:
        run: its name.
        encoder: which arm of the sweep.
        parameters, learned: of the network, and of these those that learn.
        epochs, seconds: of training, validation at the end not counted.
        peak_bytes, peak_of: most memory in use while training: of the `GPU`, or of the `process`.
        checkpoint_bytes: of the final checkpoint.
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
        run, state: its name, and whether it is finished.
        command: that trains it.
        encoder, sha256: what the encoder's weights are, and the hash of its tensors; empty for
        stock nnU-Net. ratio, seed, rule: of the subset; nnU-Net does not seed the training itself.
        versions: of nnunet-fm, nnU-Net, torch and timm.
        device: that it was trained on.
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


def cost_of(run: Run) -> Cost:
    """Read a run's cost."""
    log, progress, final = _log(run.folder), read_progress(run.folder), run.folder / FINAL
    parameters, peaks = PARAMETERS.search(log), PEAK.findall(log)
    total, learned = (
        (int(n.replace(",", "")) for n in parameters.groups()) if parameters else (0, 0)
    )
    peak, kind = max(((int(b), k) for b, k in peaks), default=(0, ""))
    size = final.stat().st_size if final.is_file() else 0
    return Cost(
        run.name, run.encoder, total, learned, progress.epoch, progress.seconds, peak, kind, size
    )


def provenance_of(run: Run) -> Provenance:
    """Read how a run was made; little is known before it began."""
    kept, debug = run.folder.parent / "plans.json", run.folder / "debug.json"
    plans = load_json(str(kept)) if kept.is_file() else {}
    facts = json.loads(debug.read_text()) if debug.is_file() else {}
    source = encoder_source(plans, run.configuration)
    subset = TrainSubset.from_plans(plans)
    encoder = "" if source is None else f"{source.card} from {source.origin}"
    versions = VERSIONS.findall(_log(run.folder))
    gpu = str(facts.get("gpu_name", "None"))
    return Provenance(
        run=run.name,
        state=run.state().value,
        command=" ".join(run.train_command()),
        encoder=encoder,
        sha256="" if source is None else source.sha256,
        ratio=subset.ratio if plans else run.ratio,
        seed=subset.seed if plans else run.seed,
        rule=subset.rule,
        versions=", then ".join(dict.fromkeys(versions)),
        device=str(facts.get("device", "")) if gpu == "None" else gpu,
    )


def _log(folder: Path) -> str:
    return "".join(p.read_text(errors="ignore") for p in sorted(folder.glob("training_log_*.txt")))
