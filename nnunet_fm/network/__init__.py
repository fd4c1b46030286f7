"""The segmentation network: channel fusion, frozen encoder, decoder."""

from nnunet_fm.network.frozen import NETWORK, NETWORKS, FrozenEncoderNetwork

__all__ = ["NETWORK", "NETWORKS", "FrozenEncoderNetwork"]
