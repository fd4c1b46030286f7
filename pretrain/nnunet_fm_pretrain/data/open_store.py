"""Opening a store of either kind."""

from pathlib import Path
from typing import Any

from nnunet_fm_pretrain.data.records import VolumeRecord, read_manifests
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.data.volume_store import VolumeStore


def open_store(folder: Path) -> Store[Any]:
    """Open the store in a folder as what it is.

    Raises:
        FileNotFoundError, ValueError: as `Store`.
    """
    contents, _ = read_manifests(folder)
    if contents and contents[0].get("kind") == VolumeRecord.kind:
        return VolumeStore(folder)
    return SliceStore(folder)
