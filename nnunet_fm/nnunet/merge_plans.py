"""Plans that exist already under the same name: one name is one run."""

import math
import os
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_fm.encoders import EncoderSource
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some
from nnunet_fm.network.frozen import NETWORKS
from nnunet_fm.nnunet.dataset_files import read_plans
from nnunet_fm.nnunet.encoder_in_plans import encoder_source
from nnunet_fm.nnunet.file_names import PLANS_JSON
from nnunet_fm.nnunet.plan_options import NO_ENCODER, PlanOptions
from nnunet_fm.nnunet.run_identity import different_keys, plan_differences
from nnunet_fm.nnunet.training_seed import TRAINING_SEED

CPU_PIXELS = 8 * 256 * 256  # of a batch that is trained on a CPU, unless the user asks for more


def decoder_to_keep(existing: Iterable[dict[str, Any]], options: PlanOptions) -> str | None:
    """Return the decoder of existing plans where the user asks for none.

    So plans and sweeps of version 0.1, whose default was another one, are planned as they were.

    Args:
        existing: plans, of which the first with one decoder counts; read only if needed.
        options: of the planner.
    """
    if options.encoder == NO_ENCODER or options.decoder is not None or options.preset is not None:
        return None
    for plans in existing:
        decoders = {
            configuration["architecture"]["arch_kwargs"].get("decoder", "primus")
            for configuration in plans.get("configurations", {}).values()
            if configuration.get("inherits_from") == options.configuration
            and configuration.get("architecture", {}).get("network_class_name") in NETWORKS
        }
        if len(decoders) == 1:
            return decoders.pop()
    return None


def settle_batch(
    existing: dict[str, Any] | None,
    plans: dict[str, Any],
    name: str,
    batch_size: int | None,
    device: str,
) -> list[str]:
    """Keep the batch of existing plans, or limit it on a CPU, where the user asks for none.

    Returns:
        What to report: patch and batch of a new configuration.
    """
    configuration = plans["configurations"][name]
    if "patch_size" not in configuration or "field_of_view" not in configuration:
        return []  # nnU-Net's own configuration
    patch = configuration["patch_size"]
    default = configuration["batch_size"]
    note = ""
    before = existing.get("configurations", {}).get(name) if existing else None
    if batch_size is None and before is not None:
        configuration["batch_size"] = before.get("batch_size", default)
    elif batch_size is None and device == "cpu":
        configuration["batch_size"] = min(default, max(2, CPU_PIXELS // math.prod(patch)))
        if configuration["batch_size"] < default:
            note = f" (for a CPU; on a GPU {default}: -device cuda; or give --batch-size)"
    return [f"patch {'x'.join(map(str, patch))}, batch {configuration['batch_size']}{note}"]


def merge_existing_configurations(
    existing: dict[str, Any] | None, plans: dict[str, Any], name: str, path: Path
) -> None:
    """Add the configurations that an earlier call wrote to the same plans.

    Args:
        existing: the plans of the same name; None if there are none.
        plans: the plans to be written; changed in place.
        name: the new configuration.
        path: file of the plans, for the error's message.

    Raises:
        ValueError: the plans exist with another encoder, subset or seed, or another content of this
            configuration.
    """
    if existing is None:
        return
    identifier = plans["plans_name"]
    if "train_subset" not in existing:
        raise InputError(
            f"plans {identifier} were not written by nnunet-fm and are not changed; choose "
            "another -o"
        )
    _keep_draw(existing, plans, name)
    added = {n: c for n, c in existing["configurations"].items() if "field_of_view" in c}
    different = _conflicts(existing, added, plans, name)
    if different:
        stock = ""
        if "normalization_schemes" in different:
            stock = " (nnU-Net's own intensities: --intensity stock)"
        raise InputError(
            f"plans {identifier} exist already, with another {some(different)}{stock}. Give these "
            f"another name (-o {identifier}_2; in a sweep, rename the entry), or remove {path} if "
            "nothing was trained with it"
        )
    plans["configurations"] = {**added, **plans["configurations"]}


def _keep_draw(existing: dict[str, Any], plans: dict[str, Any], name: str) -> None:
    """Let random weights of the new plans be those of the existing ones, which 0.1 rounded."""
    source = encoder_source(plans, name)
    if source is None or source.seed is None:
        return
    for configuration in existing["configurations"]:
        before = encoder_source(existing, configuration)
        if before is not None and before != source and source.same_draw(before):
            arguments = plans["configurations"][name]["architecture"]["arch_kwargs"]
            arguments |= before.to_plans()


def refuse_trained_otherwise(plans: dict[str, Any]) -> None:
    """Refuse plans under whose name another model is in training or trained.

    nnU-Net keeps a copy of the plans beside the model: to resume it, or to predict with it, the
    plans have to stay what they were.

    Args:
        plans: the plans to be written.

    Raises:
        ValueError: a model in nnUNet_results differs; the message says in what.
    """
    identifier = plans["plans_name"]
    results = os.environ.get("nnUNet_results")
    if not results:
        return
    for kept in sorted(
        Path(results, plans["dataset_name"]).glob(f"*__{identifier}__*/{PLANS_JSON}")
    ):
        configuration = kept.parent.name.rpartition("__")[2]
        if configuration not in plans["configurations"]:
            continue
        different = plan_differences(read_plans(kept), plans, configuration)
        if different:
            raise InputError(
                f"{kept.parent} was trained with plans {identifier} of another {some(different)}. "
                f"Give these another name (-o {identifier}_2; in a sweep, rename the entry), plan "
                "with the former options, or move that folder away"
            )


def _conflicts(
    existing: dict[str, Any], added: dict[str, Any], plans: dict[str, Any], name: str
) -> list[str]:
    """Name what the existing plans have in another way than the new ones."""
    common = ("train_subset", TRAINING_SEED)
    conflicts = [key for key in common if existing.get(key) != plans.get(key)]
    sha256 = _encoder_sha256(plans, name)
    conflicts += [f"encoder of {n}" for n in added if _encoder_sha256(existing, n) != sha256]
    if name in added:
        old = _without_path(added[name])
        new = _without_path(plans["configurations"][name])
        conflicts += [key for key in new if key != "architecture" and old.get(key) != new[key]]
        conflicts += _different_arguments(old.get("architecture", {}), new.get("architecture", {}))
    return conflicts


def _different_arguments(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Name the arguments of the network that differ, or `architecture` for another network."""
    if old == new:
        return []
    different = different_keys(old.get("arch_kwargs", {}), new.get("arch_kwargs", {}))
    return sorted(different) or ["architecture"]


def _encoder_sha256(plans: dict[str, Any], configuration: str) -> str | None:
    source = encoder_source(plans, configuration)
    return None if source is None else source.sha256


def _without_path(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that identifies the encoder by its hash, not by its file."""
    copy = deepcopy(configuration)
    arguments = copy.get("architecture", {}).get("arch_kwargs", {})
    source = EncoderSource.from_plans(arguments)
    if source is not None:
        arguments |= replace(source, file=None).to_plans()
    return copy
