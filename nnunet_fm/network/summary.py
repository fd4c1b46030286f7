"""Size and cost of a network: parameters and operations, counted on the network itself."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunet_fm.encoders import EncoderSource, InputSpec, build_encoder, get_card
from nnunet_fm.encoders.loading.weight_source import is_path
from nnunet_fm.encoders.options import check_given_options
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import counted
from nnunet_fm.network.decoders import find_decoder
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.network.input_size import check_patch


def network_info(
    encoder: str,
    channels: int,
    classes: int,
    patch: tuple[int, int] = (256, 256),
    decoder: str = "detail",
    card: str | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Count the parameters of a network, and its floating point operations for one slice.

    A multiplication and an addition are two operations.

    Args:
        encoder: weight card, architecture, or path of a weight file.
        channels: MRI channels.
        classes: output channels.
        patch: slice in pixels.
        decoder: of slices, see `nnunet_fm.network.decoders`.
        card: weight card of the file; found from the file if None.
        options: of the encoder; replace the card's.

    Returns:
        `total`, `encoder`, `trainable` parameters; `encoder_flops`, `decoder_flops` of one forward
        pass.
    """
    name, architecture, built_with = _encoder(encoder, card, options or {})
    built = build_encoder(architecture, **built_with)
    spec = built.input_spec
    _check_slices(name, spec, channels)
    check_patch(patch, 2**spec.doublings)
    named = spec.modalities or ()
    form = find_decoder(decoder, built, architecture)
    network = FrozenEncoderNetwork(  # as `nnunet-fm plan` writes it
        channels,
        classes,
        architecture,
        built_with,
        fusion="fixed" if named else form.fusion or "learnable",
        channels=list(range(len(named))) or None,
        decoder=decoder,
        decoder_options=form.plan_options({}, patch, spec.doublings),
    ).eval()
    network.use_kernels(fused_attention=False)  # the counter does not see fused kernels everywhere
    with torch.no_grad():
        with FlopCounterMode(display=False) as encoder_flops:
            image = torch.zeros(1, channels, *patch)
            features = network.encode(image)
        with FlopCounterMode(display=False) as decoder_flops:
            network.decode(features, image)
    parameters = list(network.parameters())
    return {
        "encoder_name": name,
        "channels": channels,
        "classes": classes,
        "patch": list(patch),
        "total": sum(p.numel() for p in parameters),
        "encoder": sum(p.numel() for p in network.encoder.parameters()),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "encoder_flops": encoder_flops.get_total_flops(),
        "decoder_flops": decoder_flops.get_total_flops(),
    }


def _check_slices(name: str, spec: InputSpec, channels: int) -> None:
    """Raise InputError unless an encoder takes single slices of so many channels."""
    if spec.spatial_dims != 2:
        raise InputError(f"encoder {name} is 3-D; allowed: an encoder of slices")
    if spec.slices > 1:
        raise InputError(
            f"encoder {name} sees {spec.slices} adjacent slices; allowed: one of single slices"
        )
    named = spec.modalities or ()
    if len(named) > channels:
        raise InputError(
            f"{counted(channels, 'channel')} for encoder {name} of {', '.join(named)}; allowed: "
            f"--channels {len(named)} or more"
        )


def _encoder(
    given: str, card: str | None, options: dict[str, Any]
) -> tuple[str, str, dict[str, Any]]:
    """Return the name of an encoder's card, its architecture, and the options it is built with."""
    if is_path(given):
        source = EncoderSource.resolve(given, card, options=options)
        return source.card, source.architecture, source.options
    if card is not None:
        raise InputError(
            f"--card {card} is for a weight file, and {given} is not one; remove --card"
        )
    check_given_options(options)
    named = get_card(given)
    return named.name, named.architecture, {**named.options, **options}
