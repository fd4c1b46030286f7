"""Compressed images on a disk that is full."""

import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_fm.data.image_files import write_compressed


def test_a_cut_file_is_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(16, 32, 32)).astype(np.float32)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, former[1]))
    try:
        with pytest.raises(OSError, match=r"a\.nii\.gz was not written whole"):
            write_compressed(sitk.GetImageFromArray(noise), tmp_path / "a.nii.gz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, ignored)
    write_compressed(sitk.GetImageFromArray(noise), tmp_path / "a.nii.gz")
