"""The size of the voxels of scans that differ a little, or more."""

from dataclasses import replace

import torch

from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.methods.voxel_size import common_voxel, exported_spacing


def test_voxels_of_nearly_one_size_have_their_median(scans: VolumeStore) -> None:
    first, *others = scans.records
    assert common_voxel(scans.records).tolist() == [1, 1, 1]
    assert common_voxel([replace(first, spacing=(1.02, 1.0, 0.99)), *others]).tolist() == [1, 1, 1]
    different = common_voxel([replace(first, spacing=(1.2, 1.0, 1.0)), *others])
    assert exported_spacing(different) is None


def test_sizes_are_rounded_and_those_of_no_store_are_unknown() -> None:
    assert exported_spacing(torch.tensor([3.968, 4.0, 4.0])) == [3.97, 4.0, 4.0]
    assert exported_spacing(torch.zeros(3)) is None
    assert exported_spacing(torch.zeros(3, device="meta")) is None
