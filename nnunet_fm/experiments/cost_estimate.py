"""What a sweep will cost: hours by the epochs that were seen, disk by what the networks learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.network.frozen import NETWORKS
from nnunet_fm.nnunet.training_log import read_progress

FROZEN_COPIES, STOCK_COPIES = 3, 2  # of what learns: itself, and two moments of AdamW or one of SGD
CHECKPOINTS = 2  # the best one and the last


@dataclass(frozen=True)
class Estimate:
    """Of the runs that are not finished.

    Attributes:
        hours: one after the other, without validation; NaN while no run of one of the encoders has
            ended an epoch.
        gigabytes: of checkpoints.
    """

    hours: float
    gigabytes: float


def estimate(runs: Sequence[Run], preprocessed: Path) -> Estimate:
    """Hours and gigabytes that are still to come.

    Args:
        runs: of the sweep.
        preprocessed: nnUNet_preprocessed.
    """
    waiting = [run for run in runs if run.state() is not State.FINISHED]
    progress = {run: read_progress(run.folder) for run in runs}
    seconds, sizes = 0.0, {}
    for run in waiting:
        seen = [p for r, p in progress.items() if p.epoch and _kind(r) == _kind(run)]
        own = progress[run]
        each = sum(p.seconds for p in seen) / sum(p.epoch for p in seen) if seen else float("nan")
        seconds += each * (max(p.epochs for p in seen) - own.epoch) if seen else float("nan")
        if _kind(run) not in sizes:
            sizes[_kind(run)] = _checkpoint_bytes(run, preprocessed)
    size = sum(max(0, sizes[_kind(run)] * CHECKPOINTS - _there(run)) for run in waiting)
    return Estimate(seconds / 3600, size / 1e9)


def _there(run: Run) -> int:
    """Bytes of the checkpoints that a run has already."""
    return sum(p.stat().st_size for p in run.folder.glob("checkpoint_*.pth"))


def _kind(run: Run) -> tuple[str, str, str]:
    return run.dataset, run.encoder, run.configuration


def _checkpoint_bytes(run: Run, preprocessed: Path) -> int:
    """Bytes of a checkpoint: of the parameters that learn and of their optimiser's state."""
    manager = PlansManager(load_json(str(preprocessed / run.dataset / f"{run.plans}.json")))
    configuration = manager.get_configuration(run.configuration)
    description = load_json(str(preprocessed / run.dataset / "dataset.json"))
    labels = manager.get_label_manager(description)
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        len(description.get("channel_names", description.get("modality", {}))),
        labels.num_segmentation_heads,
        allow_init=False,
    )
    copies = FROZEN_COPIES if configuration.network_arch_class_name in NETWORKS else STOCK_COPIES
    return copies * sum(
        p.numel() * p.element_size() for p in network.parameters() if p.requires_grad
    )


def words(found: Estimate, at_a_time: int) -> str:
    """For people."""
    time = "hours are known after the first epoch of each encoder"
    if not np.isnan(found.hours):
        time = f"about {found.hours / at_a_time:.1f} h, {at_a_time} at a time"
    return f"{time}; checkpoints about {found.gigabytes:.2g} GB"
