"""How the channels of a dataset reach the encoder: fusion, channels, scale."""

from collections.abc import Mapping
from typing import Any

from nnunet_fm.data.sequences import match_channels
from nnunet_fm.encoders import Encoder
from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.fusion import SEPARATE, FusionSchedule
from nnunet_fm.nnunet.planned_decoder import PlannedDecoder

MEAN_OF_CHANNELS = (
    "WARNING: --fusion fixed passes the mean of {} to the encoder, which hides what is bright in "
    "one and dark in another: on LGG a linear probe of the tokens found lesions with an average "
    "precision of 0.09, and of 0.57 with --fusion separate (docs/decoders.md). Recommended: "
    "--fusion {}"
)


def planned_input(
    decoder: PlannedDecoder, architecture: str, preferred: str, channel_names: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Choose the network's arguments for the input of the encoder.

    Args:
        decoder: of the configuration.
        architecture: name of the encoder, for messages.
        preferred: fusion of the preset.
        channel_names: of dataset.json, in the order of their numbers; empty if there is none.

    Returns:
        The arguments, and what to report to the user, one line each.

    Raises:
        ValueError: an unknown fusion, or channels that the encoder or the dataset does not have.
    """
    encoder, options = decoder.encoder, decoder.options
    names = list(channel_names.values())
    fusion = _fusion(decoder, preferred)
    arguments: dict[str, Any] = {"fusion": fusion}
    report = [f"fusion {fusion}"]
    if encoder.input_spec.modalities:
        if options.channels is not None:
            raise InputError(
                f"--channels: {architecture} knows its channels by name, "
                f"{', '.join(encoder.input_spec.modalities)}; omit it"
            )
        channels, modalities = _channels_by_name(encoder, architecture, names)
        arguments["channels"] = channels
        if modalities != list(encoder.input_spec.modalities):
            arguments["encoder_options"] = {"modalities": modalities}
        pairs = [f"{m} from {c}" for m, c in zip(modalities, channels, strict=True)]
        report.append(f"channels {', '.join(pairs)}")
    elif options.channels is not None:
        _check_channels(options.channels, encoder, architecture, fusion, names)
        arguments["channels"] = list(options.channels)
        shown = [names[c] if names else str(c) for c in options.channels]
        report.append(f"channels of the encoder: {', '.join(shown)}")
    elif fusion == "fixed" and len(set(names)) > 1 and options.tokens != "off":
        better = "separate or --channels" if decoder.sees_image else "learnable"
        report.append(MEAN_OF_CHANNELS.format(", ".join(names), better))
    if options.encoder_scale not in (None, 1):
        arguments["encoder_scale"] = options.encoder_scale
        report.append(f"image enlarged {options.encoder_scale} times for the encoder")
    return arguments, report


def _fusion(decoder: PlannedDecoder, preferred: str) -> str:
    """Return the fusion: what the user asks for, or the decoder's, or the preset's.

    Raises:
        ValueError: a fusion that does not exist, or channels by name that are not fused.
    """
    named, options = decoder.encoder.input_spec.modalities, decoder.options
    default = decoder.form.fusion or preferred
    if named or options.channels is not None or options.tokens == "off":
        default = "fixed"
    fusion = options.fusion or default
    FusionSchedule.parse(fusion)
    if named and fusion == SEPARATE:
        raise InputError(
            f"--fusion {SEPARATE} for an encoder that knows its channels by name, "
            f"{', '.join(named)}; allowed: omit it"
        )
    return fusion


def _check_channels(
    channels: tuple[int, ...], encoder: Encoder, architecture: str, fusion: str, names: list[str]
) -> None:
    """Raise ValueError unless the encoder and the dataset have these channels."""
    if fusion == SEPARATE:
        raise InputError(
            f"--channels with --fusion {SEPARATE}, which encodes every channel; allowed: one of "
            "them"
        )
    images = encoder.in_channels // encoder.input_spec.slices
    if len(channels) == images and (not names or max(channels) < len(names)):
        return
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    raise InputError(
        f"--channels {','.join(map(str, channels))}; allowed: for each of the "
        f"{images} channels of {architecture} the number of a channel of the dataset"
        + (f" ({numbered})" if numbered else "")
    )


def _channels_by_name(
    encoder: Encoder, architecture: str, names: list[str]
) -> tuple[list[int], list[str]]:
    """Match the encoder's sequences with the dataset's channels.

    Returns:
        Numbers of the channels, and the sequences that they hold.

    Raises:
        ValueError: a sequence is missing that the encoder needs.
    """
    sequences = encoder.input_spec.modalities or ()
    channels = match_channels(sequences, names)
    missing = [s for s, c in zip(sequences, channels, strict=True) if c is None]
    may_miss = encoder.input_spec.subsets and len(missing) < len(sequences)
    if missing and not may_miss:
        raise InputError(
            f"encoder {architecture} knows its channels by name, {', '.join(sequences)}; "
            f"channel_names of dataset.json are {', '.join(names) or 'missing'}: no "
            f"{', '.join(missing)}. Allowed: usual spellings such as T1, T1c or T1ce, T2, FLAIR; "
            "use them in dataset.json of nnUNet_raw and nnUNet_preprocessed"
        )
    pairs = [(c, s) for s, c in zip(sequences, channels, strict=True) if c is not None]
    return [c for c, _ in pairs], [s for _, s in pairs]
