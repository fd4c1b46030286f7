"""Skull stripping: plug-ins that turn a volume into a brain mask."""

import logging
import shlex
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunet_fm.data.volumes import BadVolumeError, Mask, Volume, read_mask
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown
from nnunet_fm.internal.programs import run_program

Stripper = Callable[[Volume, nib.Nifti1Image, Path | None], Mask]
BACKGROUND_SHARE = 0.25  # of all voxels
SMALLEST_BRAIN_SHARE = 0.02  # of the voxels that are not 0
STRIPPERS = ("none", "mask", "hd-bet", "deepbet", "command:PROGRAM {in} {out}")

logger = logging.getLogger(__name__)


def find_stripper(name: str) -> Stripper:
    """Return the plug-in called `name`.

    Args:
        name: `none` (every voxel that is not 0), `mask` (the mask of the table), `hd-bet` (the
            paper's; the program must be installed with its weights; without a GPU it runs without
            test-time augmentation), `deepbet` (trained on T1; the package contains its weights),
            or `command:` and any program that reads the NIfTI file `{in}` and writes the mask
            `{out}`.

    Raises:
        ValueError: unknown name, or a program or package that is not installed.
    """
    if name == "none":
        return _nonzero
    if name == "mask":
        return _read_given_mask
    if name == "hd-bet":
        import torch

        device = "" if torch.cuda.is_available() else " -device cpu --disable_tta"
        line = "hd-bet -i {in} -o {out} --save_bet_mask --no_bet_image" + device
        return _make_command(line, "_bet")
    if name == "deepbet":
        return _find_deepbet()
    if name.startswith("command:"):
        return _make_command(name.removeprefix("command:"))
    raise InputError(unknown("skull stripping", name, STRIPPERS))


def warn_of_unused_masks(name: str) -> None:
    """Warn that masks were given to a skull stripping that does not read them."""
    if name != "mask":
        logger.warning(
            "the column `mask` is unused with --skull-strip %s; to strip with it: "
            "--skull-strip mask",
            name,
        )


def _nonzero(volume: Volume, image: nib.Nifti1Image, mask: Path | None) -> Mask:
    """Return the voxels that are not 0; refuse a background that has another value.

    It is such a background if most of the corners and a quarter of all voxels have one value.
    """
    values, counts = np.unique(volume[np.ix_([0, -1], [0, -1], [0, -1])], return_counts=True)
    corner = values[counts.argmax()]
    share = (volume == corner).mean()
    if corner != 0 and counts.max() > 4 and share > BACKGROUND_SHARE:
        raise BadVolumeError(
            f"{share:.0%} of the voxels are {corner:g}, a background that would count as brain: "
            "only 0 is background. Set it to 0, or give a brain mask: --skull-strip mask"
        )
    return volume != 0


def _read_given_mask(volume: Volume, image: nib.Nifti1Image, mask: Path | None) -> Mask:
    if mask is None:
        raise BadVolumeError(
            "it has no mask; add one to the column `mask`, or use another skull stripping plug-in"
        )
    brain = read_mask(mask, image)
    share = (brain & (volume != 0)).sum() / (volume != 0).sum()
    if share < SMALLEST_BRAIN_SHARE:
        raise BadVolumeError(
            f"mask {mask.name} covers {share:.2%} of the voxels that are not 0, like a lesion or "
            f"a region; allowed: a brain mask of at least {SMALLEST_BRAIN_SHARE:.0%}"
        )
    return brain


@dataclass(frozen=True)
class _CommandStripper:
    """A program that reads a NIfTI file and writes a mask.

    Attributes:
        arguments: program and arguments, with `{in}` and `{out}` in place of the two files.
        ending: text that the program appends to the stem of `{out}`.
    """

    arguments: list[str]
    ending: str

    def __call__(self, volume: Volume, image: nib.Nifti1Image, mask: Path | None) -> Mask:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in.nii.gz"), Path(folder, "out.nii.gz")
            nib.save(image, source)
            command = [
                argument.replace("{in}", str(source)).replace("{out}", str(target))
                for argument in self.arguments
            ]
            done = run_program(command, capture_output=True)
            written = Path(folder, f"out{self.ending}.nii.gz")
            if done.returncode or not written.is_file():
                output = (done.stderr or done.stdout).strip().splitlines()
                raise BadVolumeError(
                    f"{command[0]} failed with code {done.returncode}; "
                    f"the last line of its output: {output[-1] if output else '(none)'}"
                )
            return read_mask(written, image)


def _make_command(line: str, ending: str = "") -> Stripper:
    try:
        arguments = shlex.split(line)
    except ValueError as error:
        raise InputError(f"skull stripping command {line!r}: {error}") from None
    if "{in}" not in line or "{out}" not in line:
        raise InputError(f"skull stripping command {line!r}; allowed: one with {{in}} and {{out}}")
    if not shutil.which(arguments[0]):
        raise InputError(
            f"skull stripping needs the program {arguments[0]!r}, which is not on the PATH; "
            "install it first"
        )
    return _CommandStripper(arguments, ending)


def _find_deepbet() -> Stripper:
    try:
        import deepbet  # noqa: F401
    except ImportError:
        raise InputError(
            "skull stripping with deepbet needs the package: pip install deepbet"
        ) from None
    return _strip_with_deepbet


def _strip_with_deepbet(volume: Volume, image: nib.Nifti1Image, mask: Path | None) -> Mask:
    from deepbet import run_bet

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.nii.gz"), Path(folder, "mask.nii.gz")
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine), source)
        run_bet([str(source)], mask_paths=[str(target)], no_gpu=True)
        return read_mask(target, image)
