"""The configuration of a frozen encoder: its network, its channels, its intensities, and all that in words."""

from collections.abc import Sequence
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_fm.data.sequences import match_channels
from nnunet_fm.encoders import Encoder, EncoderSource, intensity_of
from nnunet_fm.encoders.contract import Z_SCORE, Z_SCORE_EVERYWHERE, ZERO_TO_ONE
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.folders import folder
from nnunet_fm.internal.messages import unknown
from nnunet_fm.network.activation_memory import kept_bytes
from nnunet_fm.network.decoders import DECODERS
from nnunet_fm.network.frozen import NETWORK, NETWORK_25D, FrozenEncoderNetwork, check_decodable
from nnunet_fm.network.fusion import FusionSchedule
from nnunet_fm.network.slice_stack import check_mix
from nnunet_fm.nnunet.patch import place, side_label
from nnunet_fm.nnunet.plan_options import ConfigurationOptions

STACK = 8  # slices in a 2.5-D patch
NORMALISATIONS = {
    Z_SCORE_EVERYWHERE: "ZScoreNormalization",
    ZERO_TO_ONE: "RescaleTo01Normalization",
}


def presets() -> dict[str, dict[str, Any]]:
    """The plan presets by name, as shipped in `plans/`."""
    return {p.stem: load_json(str(p)) for p in sorted(folder("plans").glob("*.json"))}


def frozen_configuration(
    stock: dict[str, Any], options: ConfigurationOptions, dataset: dict[str, Any]
) -> tuple[str, dict[str, Any], list[str]]:
    """A configuration around a frozen encoder.

    Args:
        stock: the configuration to inherit from, resolved.
        options: of the planner.
        dataset: content of nnU-Net's dataset.json; empty if there is none.

    Returns:
        Its name, its content, and what the user should know of it, a line each.

    Raises:
        FileNotFoundError, CheckpointError: as `load_encoder`.
        ValueError: impossible options; the message names what is possible.
    """
    preset, dims = _preset(options), len(stock["patch_size"])
    taps = options.taps or preset["taps"]
    source = EncoderSource.resolve(
        options.encoder,
        options.card,
        options.seed,
        options.encoder_options,
        None if taps is None else tuple(taps),
    )
    encoder = source.load()
    arguments, words = _network_arguments(encoder, source, preset, options, dataset, dims)
    patch, stack = tuple(options.patch or preset["patch_size"]), None
    if options.mix_slices is not None:
        patch, stack = (patch[1:], patch[0]) if len(patch) == 3 else (patch, STACK)
        arguments["mix_slices"] = check_mix(options.mix_slices, stack, options.configuration)
        words[0] += f", {options.mix_slices} slices mixed"
    step = 2**encoder.input_spec.doublings
    fov = options.fov or preset["fov"]
    configuration, where = place(
        stock, options.configuration, patch, step, fov, options.batch_size, stack
    )
    configuration["architecture"] = {
        "network_class_name": NETWORK_25D if stack else NETWORK,
        "arch_kwargs": arguments,
        "_kw_requires_import": [],
    }
    if dims == 3:
        _check_that_it_runs(arguments, configuration["patch_size"])
    words += [
        *where,
        *_normalise(configuration, stock, intensity_of(encoder, source.card), options.intensity),
    ]
    if "data_identifier" not in configuration:
        words.append(f"data of {options.configuration} reused")
    origin = "RANDOM weights: a baseline, not a foundation model"
    if source.report is not None:
        origin = f"from {source.report.file} (card by {source.report.chosen_because})"
    about = [f"encoder {source.card}, {origin}", f"tensor hash {source.sha256}"]
    name = f"{'25' if stack else dims}d_fm{side_label(configuration['patch_size'][1 if stack else 0 :])}"
    return name, configuration, [*about, *words]


def _network_arguments(
    encoder: Encoder,
    source: EncoderSource,
    preset: dict[str, Any],
    options: ConfigurationOptions,
    dataset: dict[str, Any],
    dims: int,
) -> tuple[dict[str, Any], list[str]]:
    """Arguments of the network, and they in words.

    Raises:
        ValueError: an encoder of slices for a 3-D configuration, or the reverse; a decoder that
            does not fit; channels that the encoder does not know.
    """
    spec, name = encoder.input_spec, source.architecture
    if spec.spatial_dims != dims:
        other = {2: "2d (--mix-slices 3 for slices that know their neighbours)", 3: "3d_fullres"}[
            spec.spatial_dims
        ]
        raise InputError(
            f"encoder {name} is {spec.spatial_dims}-D and configuration {options.configuration!r} {dims}-D; allowed: "
            f"a {dims}-D encoder, or -c {other}"
        )
    decoder = options.decoder or _fitting_decoder(encoder, preset["decoder"])
    if decoder not in DECODERS:
        raise InputError(unknown("decoder", decoder, DECODERS))
    check_decodable(encoder, name, decoder)
    fusion = options.fusion or ("fixed" if spec.modalities else preset["fusion"])
    FusionSchedule.parse(fusion)
    taps = list(encoder.taps or options.taps or ()) or None
    arguments = {**source.to_plans(), "taps": taps, "fusion": fusion, "decoder": decoder}
    words = [f"taps {taps}, fusion {fusion}, decoder {decoder}"]
    if spec.modalities:
        channels, modalities = _channels(encoder, name, dataset.get("channel_names", {}))
        arguments["channels"] = channels
        if modalities != list(spec.modalities):
            arguments["encoder_options"] = {**source.options, "modalities": modalities}
        words.append(
            "channels "
            + ", ".join(f"{m} from {c}" for m, c in zip(modalities, channels, strict=True))
        )
    return arguments, words


def _fitting_decoder(encoder: Encoder, preferred: str) -> str:
    """The preset's decoder; UNETR's is for patches of 16 voxels only."""
    if encoder.kind == "pyramid":
        return "pyramid"
    return "primus3d" if preferred == "unetr" and encoder.input_spec.divisor != 16 else preferred


def _channels(
    encoder: Encoder, name: str, channel_names: dict[str, str]
) -> tuple[list[int], list[str]]:
    """For each sequence that the encoder knows and the dataset has, the number of its channel; and these sequences."""
    spec = encoder.input_spec
    wanted: Sequence[str] = spec.modalities or ()
    given = [channel_names[k] for k in sorted(channel_names, key=int)]
    found = match_channels(wanted, given)
    missing = [m for m, c in zip(wanted, found, strict=True) if c is None]
    if len(missing) == len(wanted) or (missing and not spec.subsets):
        raise InputError(
            f"encoder {name} knows its channels by name, {', '.join(wanted)}; channel_names of dataset.json are "
            f"{', '.join(given) or 'not there'}: no {', '.join(missing)}. Allowed: usual spellings such as T1, T1c or "
            "T1ce, T2, FLAIR; name them so in dataset.json of nnUNet_raw and nnUNet_preprocessed"
        )
    pairs = [(c, m) for m, c in zip(wanted, found, strict=True) if c is not None]
    return [c for c, _ in pairs], [m for _, m in pairs]


def _check_that_it_runs(arguments: dict[str, Any], patch: Sequence[int]) -> None:
    """Run the network on a patch that has a shape and no content: small ones leave nothing to normalise.

    Raises:
        ValueError: the patch is too small, or too large for positions that are cropped.
    """
    channels = 1 + max(arguments.get("channels") or [0])
    network = FrozenEncoderNetwork(channels, 2, **arguments)
    try:
        kept_bytes(network, channels, patch, 2)
    except RuntimeError:  # of an encoder of the user's whose shapes depend on its data
        return
    except ValueError as error:
        if "spatial element" not in str(
            error
        ):  # torch's words for a map of one voxel before an instance norm
            raise
        least = "x".join(str(max(side, 2 * 2**network.stages)) for side in patch)
        raise InputError(
            f"patch {'x'.join(map(str, patch))} is too small for {arguments['encoder']} with decoder "
            f"{arguments['decoder']} ({error}); allowed: from {least} on"
        ) from None


def _normalise(
    configuration: dict[str, Any], stock: dict[str, Any], wanted: str, asked: str
) -> list[str]:
    """Normalise as the encoder's pretraining did, on data of its own, if that is another way than nnU-Net's."""
    if wanted == Z_SCORE:
        return []
    if wanted not in NORMALISATIONS or asked == "stock":
        why = "" if wanted in NORMALISATIONS else ", which nnU-Net does not have"
        return [f"intensities as nnU-Net has them; the encoder was pretrained on {wanted}{why}"]
    count = len(stock["normalization_schemes"])
    schemes = {
        "normalization_schemes": [NORMALISATIONS[wanted]] * count,
        "use_mask_for_norm": [False] * count,
    }
    if all(stock[key] == value for key, value in schemes.items()):
        return []
    data = configuration.get("data_identifier", stock["data_identifier"])
    configuration |= schemes | {"data_identifier": f"{data}_{wanted.replace(' ', '_')}"}
    return [
        f"intensities {wanted}, as in the encoder's pretraining: {NORMALISATIONS[wanted]}, no mask (--intensity stock)"
    ]


def _preset(options: ConfigurationOptions) -> dict[str, Any]:
    known = presets()
    default = {"2d": "2d_fm256", "3d_fullres": "3d_fm128"}.get(options.configuration)
    if options.preset is None and default is None:
        bases = sorted({preset["base"] for preset in known.values()})
        raise InputError(
            f"configuration {options.configuration!r} has no preset; allowed: -c {' or '.join(bases)}"
        )
    name = str(options.preset or default)
    if name not in known:
        raise InputError(unknown("preset", name, known))
    if known[name]["base"] != options.configuration:
        raise InputError(
            f"preset {name!r} is for -c {known[name]['base']}, not -c {options.configuration}"
        )
    return known[name]
