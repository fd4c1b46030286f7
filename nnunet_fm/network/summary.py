"""Size and cost of a network: parameters and operations, counted on the network itself."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunet_fm.encoders import get_card
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.network.input_size import check_patch


def network_info(
    encoder: str,
    channels: int,
    classes: int,
    patch: tuple[int, int] = (256, 256),
    decoder: str = "primus",
) -> dict[str, Any]:
    """Count the parameters of a network, and its floating point operations for one slice.

    A multiplication and an addition are two operations.

    Args:
        encoder: weight card or architecture.
        channels: MRI channels.
        classes: output channels.
        patch: slice in pixels.
        decoder: of slices, see `nnunet_fm.network.decoders`.

    Returns:
        `total`, `encoder`, `trainable` parameters; `encoder_flops`, `decoder_flops` of one forward
        pass.
    """
    card = get_card(encoder)
    network = FrozenEncoderNetwork(
        channels, classes, card.architecture, card.options, decoder=decoder
    ).eval()
    check_patch(patch, 2**network.stages)
    network.use_kernels(fused_attention=False)  # the counter does not see fused kernels everywhere
    with torch.no_grad():
        with FlopCounterMode(display=False) as encoder_flops:
            image = torch.zeros(1, channels, *patch)
            features = network.encode(image)
        with FlopCounterMode(display=False) as decoder_flops:
            network.decode(features, image)
    parameters = list(network.parameters())
    return {
        "encoder_name": card.name,
        "channels": channels,
        "classes": classes,
        "patch": list(patch),
        "total": sum(p.numel() for p in parameters),
        "encoder": sum(p.numel() for p in network.encoder.parameters()),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "encoder_flops": encoder_flops.get_total_flops(),
        "decoder_flops": decoder_flops.get_total_flops(),
    }
