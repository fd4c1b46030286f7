import numpy as np
import pytest

from nnunet_fm.data.preprocessing import (
    bounding_box,
    centre_fit,
    crop_to_brains,
    preprocess_volume,
    resample_brain,
    resize,
    zscore,
)
from nnunet_fm.data.volumes import BadVolumeError


def brain(shape: tuple[int, int, int] = (20, 24, 28)) -> np.ndarray:
    volume = np.zeros(shape, np.float32)
    inside = tuple(slice(4, -4) for _ in shape)
    volume[inside] = np.random.default_rng(0).random(volume[inside].shape) + 1
    return volume


def test_a_brain_is_cropped_resized_and_scored() -> None:
    volume = brain()
    result = preprocess_volume(volume, volume != 0, (8, 16, 16))
    assert result.shape == (8, 16, 16)
    assert (result != 0).all()  # the box is full
    assert abs(result.mean()) < 1e-5
    assert abs(result.std() - 1) < 1e-5


def test_the_box_is_the_smallest() -> None:
    volume = brain()
    box = bounding_box(volume != 0)
    assert [(side.start, side.stop) for side in box] == [(4, 16), (4, 20), (4, 24)]
    for spoilt, message in ((np.zeros((20, 20, 20)), "nothing but zeros"), (np.eye(3)[None], "at")):
        with pytest.raises(BadVolumeError, match=message):
            bounding_box(spoilt != 0)


def test_an_unchanged_shape_changes_no_voxel() -> None:
    volume = brain()
    image, inside = resize(volume, (20, 24, 28))
    np.testing.assert_allclose(image, volume, atol=1e-6)
    assert np.array_equal(inside, volume != 0)


def test_outliers_are_clipped_and_constant_brains_refused() -> None:
    volume = brain()
    volume[10, 10, 10] = 1e6
    scored = zscore(volume, volume != 0)
    assert scored.max() < 3
    assert (scored[volume == 0] == 0).all()
    constant = np.where(volume != 0, 5, 0).astype(np.float32)
    with pytest.raises(BadVolumeError, match="the brain is constant"):
        zscore(constant, constant != 0)
    with pytest.raises(BadVolumeError, match="nothing is left"):
        zscore(constant, np.zeros(constant.shape, bool))


def test_centre_fit_crops_and_pads_around_the_middle() -> None:
    values = np.arange(1.0, 61.0).reshape(3, 4, 5)
    fitted = centre_fit(values, (5, 4, 3))
    assert np.array_equal(fitted[1:4], values[:, :, 1:4])
    assert not fitted[[0, 4]].any()


def test_a_brain_at_a_spacing_keeps_its_size_in_mm() -> None:
    volume = brain()
    (box,) = crop_to_brains([volume], [volume != 0])
    assert box.shape == (12, 16, 20)
    result = resample_brain(box, (3.0, 2.0, 1.0), (2.0, 2.0, 2.0), (24, 20, 12))
    filled = np.argwhere(result != 0)
    assert filled.min(0).tolist() == [3, 2, 1]
    assert (filled.max(0) - filled.min(0) + 1).tolist() == [18, 16, 10]
    scored = result[result != 0]
    assert abs(scored.mean()) < 1e-5
    assert abs(scored.std() - 1) < 1e-5
    same = resample_brain(box, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (12, 16, 20))
    assert np.array_equal(same, preprocess_volume(volume, volume != 0, (12, 16, 20)))
    with pytest.raises(
        BadVolumeError, match=r"has 18x16x10 voxels .z, y, x. of 2x2x2 mm, more than .*24x15"
    ):
        resample_brain(box, (3.0, 2.0, 1.0), (2.0, 2.0, 2.0), (24, 15, 12))
