"""How large the checkpoints of a training will be, before it begins."""

from pathlib import Path
from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fm.data.sequences import channel_names
from nnunet_fm.network.frozen import NETWORKS
from nnunet_fm.nnunet.dataset_files import read_dataset_json
from nnunet_fm.nnunet.file_names import DATASET_JSON

# tensors per trained parameter in a checkpoint: the parameter and the optimiser's moments
FROZEN_TENSORS = 3  # AdamW has two
STOCK_TENSORS = 2  # SGD has one


def checkpoint_bytes(dataset: Path, plans: dict[str, Any], configuration: str) -> int:
    """Bytes of one checkpoint: the trained parameters and their optimiser's state.

    Args:
        dataset: the preprocessed dataset's folder.
        plans: content of the plans.
        configuration: one of theirs.
    """
    manager = PlansManager(plans)
    resolved = manager.get_configuration(configuration)
    description = read_dataset_json(dataset / DATASET_JSON, "labels")
    network = get_network_from_plans(
        resolved.network_arch_class_name,
        resolved.network_arch_init_kwargs,
        resolved.network_arch_init_kwargs_req_import,
        len(channel_names(description)),
        manager.get_label_manager(description).num_segmentation_heads,
        allow_init=False,
    )
    is_frozen = resolved.network_arch_class_name in NETWORKS
    tensors = FROZEN_TENSORS if is_frozen else STOCK_TENSORS
    return tensors * sum(
        p.numel() * p.element_size() for p in network.parameters() if p.requires_grad
    )
