"""What makes two trainings of one name the same run."""

import copy
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fm.encoders import EncoderSource
from nnunet_fm.nnunet.train_subset import TrainSubset


def run_identity(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """What makes two runs of one name the same run: the resolved configuration and the subset, not the file's path."""
    identity = copy.deepcopy(PlansManager(plans).get_configuration(configuration).configuration)
    arguments = identity.pop("architecture")["arch_kwargs"]
    source = EncoderSource.from_plans(arguments)
    arguments.pop("encoder_source", None)
    subset = TrainSubset.from_plans(plans).to_json()
    return identity | {
        "network": arguments,
        "encoder": None if source is None else source.sha256,
        "train_subset": subset,
    }


def differences(began: dict[str, Any], now: dict[str, Any], configuration: str) -> list[str]:
    """Keys of `run_identity` in which two plans are not the same run."""
    one, other = run_identity(began, configuration), run_identity(now, configuration)
    return [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
