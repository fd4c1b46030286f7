"""Skull stripping: plug-ins that take a volume and give a brain mask."""

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from nnunet_fm.data.volumes import BadVolumeError, Mask, Volume, read_mask
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

Stripper = Callable[[Volume, nib.Nifti1Image, Path | None], Mask]
STRIPPERS = ("none", "mask", "hd-bet", "deepbet", "command:PROGRAM {in} {out}")


def find_stripper(name: str) -> Stripper:
    """The plug-in called `name`.

    Args:
        name: `none` (everything that is not 0), `mask` (the source's own), `hd-bet` (the paper's;
            its program must be installed with its weights; without a GPU it runs without test-time
            augmentation), `deepbet` (made for T1; its weights come with it), or `command:` and any
            program that reads the NIfTI file `{in}` and writes the mask `{out}`.

    Raises:
        ValueError: unknown name, or a program that is not there.
    """
    if name == "none":
        return lambda volume, image, mask: volume != 0
    if name == "mask":
        return _given
    if name == "hd-bet":
        device = "" if torch.cuda.is_available() else " -device cpu --disable_tta"
        return _command("hd-bet -i {in} -o {out} --save_bet_mask --no_bet_image" + device, "_bet")
    if name == "deepbet":
        return _deepbet()
    if name.startswith("command:"):
        return _command(name.removeprefix("command:"))
    raise InputError(unknown("skull stripping", name, STRIPPERS))


def _given(volume: Volume, image: nib.Nifti1Image, mask: Path | None) -> Mask:
    if mask is None:
        raise BadVolumeError(
            "no mask is given for it; add it to the column `mask`, or strip with another plug-in"
        )
    return read_mask(mask, image)


def _command(line: str, ending: str = "") -> Stripper:
    words = shlex.split(line)
    if "{in}" not in line or "{out}" not in line:
        raise InputError(
            f"skull stripping command {line!r}; allowed: one with {{in}} and {{out}} in it"
        )
    if not shutil.which(words[0]):
        raise InputError(
            f"skull stripping needs the program {words[0]!r}, which is not on the PATH; install it first"
        )

    def strip(volume: Volume, image: nib.Nifti1Image, mask: Path | None) -> Mask:
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder, "in.nii.gz"), Path(folder, "out.nii.gz")
            nib.save(image, given)
            full = [w.replace("{in}", str(given)).replace("{out}", str(made)) for w in words]
            done = subprocess.run(full, capture_output=True, text=True)
            made = Path(folder, f"out{ending}.nii.gz")
            if done.returncode or not made.is_file():
                said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
                raise BadVolumeError(
                    f"{words[0]} failed with code {done.returncode}; it said: {said[0]}"
                )
            return read_mask(made, image)

    return strip


def _deepbet() -> Stripper:
    try:
        from deepbet import run_bet
    except ImportError:
        raise InputError(
            "skull stripping with deepbet needs the package: pip install deepbet"
        ) from None

    def strip(volume: Volume, image: nib.Nifti1Image, mask: Path | None) -> Mask:
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder, "in.nii.gz"), Path(folder, "mask.nii.gz")
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine), given)
            run_bet([str(given)], mask_paths=[str(made)], no_gpu=True)
            return read_mask(made, image)

    return strip
