"""Parts of nnU-Net's U-Nets, from dynamic-network-architectures."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn

CONVOLUTIONS: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def block_arguments(dims: int) -> dict[str, Any]:
    """Return the arguments of nnU-Net's convolution blocks: instance norm and leaky ReLU."""
    return {
        "conv_op": CONVOLUTIONS[dims],
        "conv_bias": True,
        "norm_op": NORMS[dims],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def unet_encoder(
    dims: int, input_channels: int, widths: Sequence[int], blocks: int
) -> PlainConvEncoder:
    """Build the encoder of nnU-Net's plain U-Net; every level after the first halves the grid.

    Args:
        dims: 2 or 3.
        input_channels: of the image.
        widths: channels of each level, from the finest.
        blocks: convolutions of each level.
    """
    strides = [1, *([2] * (len(widths) - 1))]
    return PlainConvEncoder(
        input_channels,
        len(widths),
        list(widths),
        kernel_sizes=3,
        strides=strides,
        n_conv_per_stage=blocks,
        return_skips=True,
        **block_arguments(dims),
    )


def unet_decoder(
    dims: int, widths: Sequence[int], steps: Sequence[int], num_classes: int, blocks: int
) -> UNetDecoder:
    """Build the decoder of nnU-Net's U-Nets with one output, at the finest level.

    Args:
        dims: 2 or 3.
        widths: channels of each level, from the finest.
        steps: stride of each level relative to the finer one; 1 for the finest.
        num_classes: output channels.
        blocks: convolutions of each level.
    """
    encoder = SimpleNamespace(
        output_channels=list(widths),
        strides=[[step] * dims for step in steps],
        kernel_sizes=[[3] * dims for _ in steps],
        **block_arguments(dims),
    )
    decoder = UNetDecoder(encoder, num_classes, blocks, deep_supervision=False)
    # Only the finest head is used, and DDP expects a gradient for every parameter.
    heads = decoder.seg_layers
    decoder.seg_layers = nn.ModuleList([*(nn.Identity() for _ in heads[:-1]), heads[-1]])
    return decoder
