"""What makes two trainings of one name the same run."""

import copy
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fm.encoders import EncoderSource
from nnunet_fm.nnunet.train_subset import TrainSubset
from nnunet_fm.nnunet.training_seed import TRAINING_SEED


def run_identity(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """Collect what identifies a run: the configuration, the encoder's hash, the subset, the seed.

    The path of the encoder's file does not count.
    """
    identity = copy.deepcopy(PlansManager(plans).get_configuration(configuration).configuration)
    arguments = identity.pop("architecture")["arch_kwargs"]
    source = EncoderSource.from_plans(arguments)
    arguments.pop("encoder_source", None)
    return identity | {
        "network": arguments,
        "encoder": None if source is None else source.sha256,
        "train_subset": TrainSubset.from_plans(plans).to_json(),
        TRAINING_SEED: plans.get(TRAINING_SEED),
    }


def plan_differences(one: dict[str, Any], other: dict[str, Any], configuration: str) -> list[str]:
    """List the keys of `run_identity` in which two plans differ; empty for the same run.

    Instead of `network`, the arguments of the network that differ are listed, e.g. `decoder`.
    """
    first = run_identity(one, configuration)
    second = run_identity(other, configuration)
    networks = first.pop("network"), second.pop("network")
    return sorted({*different_keys(first, second), *different_keys(*networks)})


def different_keys(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """List the keys in which two dicts differ; a key that is missing counts as None."""
    return [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
