"""Any foundation encoder, frozen, inside stock nnU-Net."""

from importlib.metadata import PackageNotFoundError, version

from nnunet_fm.internal.folders import activate

try:
    __version__ = version("nnunet-fm")
except PackageNotFoundError:  # a bare checkout on the path
    __version__ = "0+unknown"

__all__ = ["__version__", "activate"]
