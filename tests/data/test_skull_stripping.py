from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from helpers.tables import write_volume_file
from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.data.volumes import BadVolumeError, read_volume


@pytest.fixture
def volume_file(tmp_path: Path) -> Path:
    """A volume, and `mask.nii.gz` of its middle next to it."""
    path = write_volume_file(tmp_path / "v.nii.gz", 0)
    image = nib.load(path)
    mask = np.zeros(image.shape, np.uint8)
    mask[4:-4, 4:-4, 4:-4] = 1
    nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / "mask.nii.gz")
    return path


def test_without_stripping_every_voxel_that_is_not_zero_is_brain(volume_file: Path) -> None:
    volume, image = read_volume(volume_file)
    assert np.array_equal(find_stripper("none")(volume, image, None), volume != 0)


def test_the_mask_of_the_table_is_read(volume_file: Path, tmp_path: Path) -> None:
    volume, image = read_volume(volume_file)
    brain = find_stripper("mask")(volume, image, tmp_path / "mask.nii.gz")
    assert brain.sum() == np.prod([side - 8 for side in volume.shape])
    with pytest.raises(BadVolumeError, match="it has no mask; add one to the column `mask`"):
        find_stripper("mask")(volume, image, None)


def test_a_command_writes_the_mask_or_its_output_is_reported(
    volume_file: Path, tmp_path: Path
) -> None:
    volume, image = read_volume(volume_file)
    program = tmp_path / "strip.sh"
    program.write_text(f"#!/bin/sh\ncp {tmp_path}/mask.nii.gz $2\n")
    program.chmod(0o755)
    strip = find_stripper(f"command:{program} {{in}} {{out}}")
    assert strip(volume, image, None).sum() == np.prod([side - 8 for side in volume.shape])
    program.write_text("#!/bin/sh\necho no brain >&2; exit 3\n")
    with pytest.raises(BadVolumeError, match="failed with code 3; .* output: no brain"):
        strip(volume, image, None)
    program.write_text("#!/bin/sh\nprintf 'caf\\351' >&2; exit 3\n")  # Latin-1
    with pytest.raises(BadVolumeError, match="output: caf\ufffd"):
        strip(volume, image, None)
    program.write_text("#!/bin/sh\n")
    with pytest.raises(BadVolumeError, match=r"failed with code 0; .* output: \(none\)"):
        strip(volume, image, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hdbet", "Did you mean hd-bet"),
        ("command:no-such-program {in} {out}", "not on the PATH"),
        ("command:cp", "with {in} and {out}"),
    ],
)
def test_unknown_plug_ins_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_stripper(name)
