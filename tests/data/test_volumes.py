import numpy as np
import pytest

from nnunet_fm.data.volumes import voxels_sha256


@pytest.mark.parametrize("highest", [1000, 1600, 2000, 3968, 4095])
def test_voxels_are_the_same_at_another_scale(highest: int) -> None:
    whole = np.random.default_rng(0).integers(1, highest + 1, (16, 17, 18)).astype(np.float32)
    whole[0, 0, 0], whole[-1, -1, -1] = 0, highest
    hashes = {voxels_sha256(whole * np.float32(scale)) for scale in (1, 0.1, 0.37, 1 / 3)}
    assert len(hashes) == 1
    whole[8, 8, 8] += highest // 2
    assert voxels_sha256(whole) not in hashes
