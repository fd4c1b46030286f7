import locale
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.dicom import ORIGIN_MM, SPACING_MM, write_multiframe, write_series
from nnunet_fm.data.volumes import BadVolumeError, read_volume

VOLUME = np.random.default_rng(0).integers(1, 900, (17, 20, 22))
RGB: dict[str, Any] = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelData": bytes(20 * 22 * 3),
}


def test_a_series_has_its_voxels_where_they_lie(tmp_path: Path) -> None:
    before = locale.setlocale(locale.LC_ALL)
    volume, image = read_volume(write_series(tmp_path, VOLUME))
    assert locale.setlocale(locale.LC_ALL) == before
    assert np.array_equal(volume, VOLUME)
    z, y, x = SPACING_MM
    left, posterior, superior = ORIGIN_MM
    assert np.allclose(image.affine[:3, :3], np.diag([-x, -y, z]))  # NIfTI: right and anterior
    assert np.allclose(image.affine[:3, 3], [-left, -posterior, superior])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "holds phase, real or imaginary"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP"]}, "holds phase, real or imaginary"),
        ({"ComplexImageComponent": "REAL"}, "holds phase, real or imaginary"),
        ({"Modality": "SEG"}, "is SEG, no image"),
        (RGB, "holds colour images"),
    ],
)
def test_what_is_no_magnitude_image_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadVolumeError, match=message):
        read_volume(write_series(tmp_path, VOLUME, **changes))


def test_multi_frame_files_are_called_so(tmp_path: Path) -> None:
    with pytest.raises(BadVolumeError, match=r"multi-frame \(17 images in one file\).*dcm2niix"):
        read_volume(write_multiframe(tmp_path, VOLUME))


def test_slices_that_lack_or_repeat_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path, VOLUME)
    write_series(tmp_path, VOLUME[:3], first=40)
    with pytest.raises(BadVolumeError, match="several images at one position"):
        read_volume(folder)
    for number in (7, 8, 40, 41, 42):
        (folder / f"{number:03d}.dcm").unlink()
    with pytest.raises(BadVolumeError, match=r"lacks slices: steps of 2.00 to 6.00 mm"):
        read_volume(folder)


def test_one_word_of_the_image_type_is_a_word(tmp_path: Path) -> None:
    volume, _ = read_volume(write_series(tmp_path, VOLUME, ImageType="DERIVED"))
    assert np.array_equal(volume, VOLUME)


def test_slices_in_several_directions_are_a_localiser(tmp_path: Path) -> None:
    write_series(tmp_path, VOLUME[:10])
    write_series(tmp_path, VOLUME[10:], first=40, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    with pytest.raises(BadVolumeError, match="several directions"):
        read_volume(tmp_path)
