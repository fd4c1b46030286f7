"""The configuration of a frozen encoder: its network, its channels and its intensities."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunet_fm.data.sequences import channel_names
from nnunet_fm.encoders import Encoder, EncoderSource, intensity_of, required_orientation
from nnunet_fm.encoders.declared import check_declared
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.folders import folder
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.internal.messages import unknown
from nnunet_fm.network.activation_memory import kept_bytes
from nnunet_fm.network.frozen import NETWORK, NETWORK_25D, FrozenEncoderNetwork
from nnunet_fm.network.slice_stack import check_mix
from nnunet_fm.nnunet.intensities import set_intensities
from nnunet_fm.nnunet.patch import derive_configuration, side_label
from nnunet_fm.nnunet.plan_options import ConfigurationOptions
from nnunet_fm.nnunet.planned_decoder import PlannedDecoder
from nnunet_fm.nnunet.planned_input import planned_input

SAME_SPACING = 0.1  # tolerance, as a share
STACK = 8  # slices in a 2.5-D patch
DEFAULT_PRESETS = {"2d": "2d_detail", "3d_fullres": "3d_fm128"}


def presets() -> dict[str, dict[str, Any]]:
    """Read the plan presets shipped in `plans/`, by name."""
    return {p.stem: read_object(p) for p in sorted(folder("plans").glob("*.json"))}


def frozen_configuration(
    stock: dict[str, Any], options: ConfigurationOptions, dataset: dict[str, Any]
) -> tuple[str, dict[str, Any], list[str]]:
    """Make a configuration around a frozen encoder.

    Args:
        stock: the configuration to inherit from, resolved.
        options: options of the planner.
        dataset: content of nnU-Net's dataset.json; empty if there is none.

    Returns:
        Its name, its content, and what to report to the user, one line each.

    Raises:
        FileNotFoundError, CheckpointError: as `EncoderSource.resolve`.
        ValueError: impossible options; the message names the possible ones.
    """
    dims = len(stock["patch_size"])
    preset = _preset(options)
    source = _encoder_source(options, preset)
    encoder = source.load()
    check_declared(encoder, source.architecture, source.options)
    _check_dimensions(source.architecture, encoder, options.configuration, dims)
    decoder = PlannedDecoder.choose(encoder, source.architecture, preset["decoder"], options)
    arguments, report = _network_arguments(decoder, source, preset, dataset)
    patch, stack, stack_report = _patch_and_stack(source.architecture, encoder, options, preset)
    if stack is not None:
        arguments["mix_slices"] = options.mix_slices
    report[0] += stack_report
    configuration, patch_report = derive_configuration(
        stock,
        options.configuration,
        patch,
        step=2**decoder.stages,
        fov=options.fov or preset["fov"],
        batch_size=options.batch_size,
        stack=stack,
    )
    sides = configuration["patch_size"][1 if stack else 0 :]
    decoder_arguments, decoder_report = decoder.arguments(sides)
    arguments |= decoder_arguments
    report[0] += decoder_report
    configuration["architecture"] = {
        "network_class_name": NETWORK_25D if stack else NETWORK,
        "arch_kwargs": arguments,
        "_kw_requires_import": [],
    }
    if dims == 3:
        _check_that_it_runs(arguments, configuration["patch_size"])
    pretrained = intensity_of(encoder, source.card)
    report += patch_report + set_intensities(configuration, stock, pretrained, options.intensity)
    if "data_identifier" not in configuration:
        report.append(f"data of {options.configuration} reused")
    report += _spacing_report(encoder, configuration.get("spacing", stock["spacing"]))
    name = f"{'25' if stack else dims}d_fm{side_label(sides)}"
    return name, configuration, [*_encoder_report(source, encoder), *report]


def _patch_and_stack(
    architecture: str, encoder: Encoder, options: ConfigurationOptions, preset: dict[str, Any]
) -> tuple[tuple[int, ...], int | None, str]:
    """Return the sides of the patch, the number of slices of a stack, and what to report.

    Raises:
        ValueError: stacks that cannot be mixed, or an encoder of slabs without stacks.
    """
    patch = tuple(options.patch or preset["patch_size"])
    mix = options.mix_slices
    if mix is None:
        if encoder.input_spec.slices > 1:
            raise InputError(
                f"encoder {architecture} sees {encoder.input_spec.slices} adjacent slices; add "
                "--mix-slices 1 (or 3, 5), which plans stacks of slices"
            )
        return patch, None, ""
    patch, stack = (patch[1:], patch[0]) if len(patch) == 3 else (patch, STACK)
    check_mix(mix, stack, options.configuration)
    return patch, stack, f", stacks of slices, {mix} mixed" if mix > 1 else ", stacks of slices"


def _encoder_source(options: ConfigurationOptions, preset: dict[str, Any]) -> EncoderSource:
    taps = options.taps or preset["taps"]
    return EncoderSource.resolve(
        options.encoder,
        options.card,
        options.seed,
        options.encoder_options,
        None if taps is None else tuple(taps),
    )


def _encoder_report(source: EncoderSource, encoder: Encoder) -> list[str]:
    origin = "RANDOM weights: a baseline, not a foundation model"
    if source.report is not None:
        origin = f"from {source.report.file} (card by {source.report.chosen_because})"
    lines = [f"encoder {source.card}, {origin}", f"tensor hash {source.sha256}"]
    if encoder.input_spec.slices > 1:
        lines.append(
            f"sees {encoder.input_spec.slices} slices of each channel from the lowest to the "
            "highest; nnU-Net passes images as their files store them. If yours are stored from "
            "top to bottom (nibabel.aff2axcodes ends in I): nnU-Net's reader "
            "NibabelIOWithReorient turns them to RAS"
        )
    orientation = required_orientation(encoder, source.card, source.options)
    if orientation:
        lines.append(_orientation_report(orientation, encoder.turn is not None))
    return lines


def _spacing_report(encoder: Encoder, spacing: Sequence[float]) -> list[str]:
    """Say that the voxels of a configuration are not those of the encoder's pretraining."""
    pretrained = encoder.input_spec.spacing
    if pretrained is None or np.allclose(pretrained, spacing, rtol=SAME_SPACING):
        return []
    before, now = (" x ".join(f"{side:g}" for side in sides) for sides in (pretrained, spacing))
    words = " ".join(f"{side:g}" for side in pretrained)
    return [
        f"pretrained on voxels of {before} mm; those of this configuration have {now} mm. To plan "
        f"the dataset for {before} mm: nnUNetv2_plan_experiment -d DATASET "
        f"-overwrite_target_spacing {words} -overwrite_plans_name NAME"
    ]


def _orientation_report(orientation: str, turns: bool) -> str:
    """Say how images have to be stored for an encoder of volumes.

    Args:
        orientation: of its pretraining, RAS or LPS.
        turns: whether it takes the option `image_orientation`.
    """
    other, whose = ("RAS", "") if orientation == "LPS" else ("LPS", ", as BraTS's")
    remedies = []
    if orientation == "RAS":
        remedies.append("nnU-Net's reader NibabelIOWithReorient turns them to RAS")
    if turns:
        remedies.append(f"all of them {other}{whose}: --encoder-option image_orientation={other}")
    if turns and orientation == "LPS":
        remedies.append(
            "mixed: the same option, with nnU-Net's reader NibabelIOWithReorient, which turns them "
            "to RAS"
        )
    return (
        f"pretrained on {orientation} volumes; nnU-Net passes images as their files store them. If "
        f"yours are stored otherwise: {'; '.join(remedies)}"
    )


def _network_arguments(
    decoder: PlannedDecoder,
    source: EncoderSource,
    preset: dict[str, Any],
    dataset: dict[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """Choose the network's arguments, but for the decoder's options.

    Returns:
        The arguments, and what to report to the user, one line each.

    Raises:
        ValueError: as `planned_input`.
    """
    taps = list(decoder.encoder.taps or decoder.options.taps or ()) or None
    names = channel_names(dataset)
    chosen, report = planned_input(decoder, source.architecture, preset["fusion"], names)
    chosen["encoder_options"] = {**source.options, **chosen.get("encoder_options", {})}
    report[0] = f"taps {taps}, {report[0]}, decoder {decoder.name}"
    return {**source.to_plans(), "taps": taps, **chosen, "decoder": decoder.name}, report


def _check_dimensions(name: str, encoder: Encoder, configuration: str, dims: int) -> None:
    """Raise ValueError unless encoder and configuration are both 2-D or both 3-D."""
    encoder_dims = encoder.input_spec.spatial_dims
    if encoder_dims == dims:
        return
    other = "3d_fullres"
    if encoder_dims == 2:
        other = "2d (--mix-slices 3 for slices that see their neighbours)"
    raise InputError(
        f"encoder {name} is {encoder_dims}-D and configuration {configuration!r} {dims}-D; "
        f"allowed: a {dims}-D encoder, or -c {other}"
    )


def _check_that_it_runs(arguments: dict[str, Any], patch: Sequence[int]) -> None:
    """Run the network on tensors without content: a small patch may leave nothing to normalise.

    Raises:
        ValueError: the patch is too small, or too large for positions that are cropped.
    """
    channels = 1 + max(arguments.get("channels") or [0])
    network = FrozenEncoderNetwork(channels, 2, **arguments)
    try:
        kept_bytes(network, channels, patch, 2)
    except RuntimeError:  # a user's encoder whose shapes depend on its data
        return
    except ValueError as error:
        # torch's words for a map of one voxel before an instance norm
        if "spatial element" not in str(error):
            raise
        smallest = "x".join(str(max(side, 2 * 2**network.stages)) for side in patch)
        raise InputError(
            f"patch {'x'.join(map(str, patch))} is too small for {arguments['encoder']} with "
            f"decoder {arguments['decoder']} ({error}); allowed: from {smallest} on"
        ) from None


def _preset(options: ConfigurationOptions) -> dict[str, Any]:
    """Read the preset that the options name, or the configuration's default.

    Raises:
        ValueError: it is unknown, or for another configuration.
    """
    known = presets()
    default = DEFAULT_PRESETS.get(options.configuration)
    if options.preset is None and default is None:
        bases = sorted({preset["base"] for preset in known.values()})
        raise InputError(
            f"configuration {options.configuration!r} has no preset; allowed: "
            f"-c {' or '.join(bases)}"
        )
    name = str(options.preset or default)
    if name not in known:
        raise InputError(unknown("preset", name, known))
    base = known[name]["base"]
    if base != options.configuration:
        raise InputError(f"preset {name!r} is for -c {base}, not -c {options.configuration}")
    return known[name]
