"""Features of slices: tokens of a frozen encoder, or raw pixels, of subjects and of patches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad, unfold

from nnunet_fm.data.grids import Grid, read_on_grid, reorient, upright
from nnunet_fm.data.image_checks import find_problem
from nnunet_fm.data.label_images import read_labels
from nnunet_fm.data.preprocessing import zscore
from nnunet_fm.data.skull_stripping import Stripper
from nnunet_fm.data.volumes import read_volume
from nnunet_fm.encoders import Encoder
from nnunet_fm.encoders.slicewise import to_slabs, to_slices
from nnunet_fm.internal.device import keep_freed_memory
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.data.preprocessing import Preprocessing, Slices, preprocess
from nnunet_fm_pretrain.probing.linear_probes import Features

BATCH = 64


def read_slices(path: Path, mask: Path | None, strip: Stripper, options: Preprocessing) -> Slices:
    """Read the slices of a volume as pretraining sees them.

    Args:
        path: NIfTI file or DICOM folder.
        mask: its brain mask, for the plug-in that needs one.
        strip: skull stripping plug-in.
        options: preprocessing, as in pretraining.
    """
    volume, image = read_volume(path)
    return preprocess(volume, strip(volume, image, mask), options)[0]


def slice_features(
    encoder: Encoder | None, slices: Slices, side: int = 16
) -> Float[np.ndarray, " d"]:
    """Average the CLS token, or raw pixels, over the slices of a volume.

    Args:
        encoder: frozen; None: slices are shrunk to `side` x `side` pixels instead.
        slices: preprocessed.
        side: in pixels, see `encoder`.
    """
    with torch.inference_mode():
        if encoder is None:
            x = torch.from_numpy(slices)[:, None]
            return interpolate(x, size=(side, side), mode="area").mean(0).flatten().numpy()
        (inputs,) = _encoder_inputs(encoder, slices[None])
        parts = [encoder.embed(part.to(device_of(encoder))) for part in inputs.split(BATCH)]
        return torch.cat(parts).mean(0).cpu().numpy()


def patch_features(
    encoder: Encoder | None,
    images: Float[np.ndarray, "c z h w"],
    patch: int,
    context: int | None = None,
) -> Features:
    """Return a row per patch of a case: the tokens of each channel side by side, or raw pixels.

    An encoder of several named sequences gets all channels together, in the order of its
    sequences.

    Args:
        encoder: frozen; its last tapped block is used. None: raw pixels.
        images: channels of a case, z-scored.
        patch: side of a patch in pixels.
        context: side of the window of pixels around the patch, if there is no encoder; the patch
            itself if None.
    """
    with torch.inference_mode():
        if encoder is None:
            return _raw_windows(torch.from_numpy(images), patch, context or patch)
        sides = []
        for inputs in _encoder_inputs(encoder, images):
            parts = [
                encoder.features(part.to(device_of(encoder)))[-1].cpu()
                for part in inputs.split(BATCH)
            ]
            sides.append(torch.cat(parts).flatten(2).transpose(1, 2).flatten(0, 1))
        return torch.cat(sides, dim=1).numpy()


def _raw_windows(x: Float[Tensor, "c z h w"], patch: int, context: int) -> Features:
    border = (context - patch) // 2
    padded = pad(x.transpose(0, 1), (border,) * 4)
    windows = unfold(padded, patch + 2 * border, stride=patch)
    return windows.transpose(1, 2).flatten(0, 1).numpy()


def _encoder_inputs(
    encoder: Encoder, images: Float[np.ndarray, "c z h w"]
) -> list[Float[Tensor, "z d h w"]]:
    """Return what an encoder takes: each image, or all of an encoder of several sequences."""
    spec, x = encoder.input_spec, torch.from_numpy(images)
    together = spec.modalities is not None and len(spec.modalities) > 1
    inputs = []
    for group in [x] if together else x.split(1):
        slabs = to_slices(to_slabs(group[None], spec.slices))
        if slabs.shape[1] == 1:  # the same image in every channel
            slabs = slabs.expand(-1, encoder.in_channels, -1, -1)
        inputs.append(slabs)
    return inputs


def patch_labels(labels: Integer[np.ndarray, "z h w"], patch: int) -> Integer[np.ndarray, " n"]:
    """Label patches: 1 if at least half of the patch is labelled, else 0."""
    share = avg_pool2d((torch.from_numpy(labels.astype(np.int64)) > 0).float()[:, None], patch)
    return (share.flatten() >= 0.5).long().numpy()


def read_case(
    raw: Path, case: str, channels: Sequence[int], ending: str, size: int
) -> tuple[Float[np.ndarray, "c z h w"], Integer[np.ndarray, "z h w"]]:
    """Read channels and labels of a case, see `read_channels`.

    Channels are clipped and z-scored over their non-zero voxels, then resized.

    Args:
        raw: `nnUNet_raw/DatasetXXX`.
        case: identifier.
        channels: their numbers.
        ending: of the files.
        size: slices are resized to this side.
    """
    images, labels, _ = read_channels(raw, case, channels, ending)
    scored = [zscore(image, image != 0) for image in images]
    resized = interpolate(
        torch.from_numpy(np.stack(scored)), size=(size, size), mode="bilinear", antialias=True
    )
    small = interpolate(
        torch.from_numpy(labels.astype(np.float32))[:, None],
        size=(size, size),
        mode="nearest-exact",
    )
    return resized.numpy(), small[:, 0].numpy().astype(np.int64)


def read_channels(
    raw: Path, case: str, channels: Sequence[int], ending: str
) -> tuple[list[Float[np.ndarray, "z y x"]], Integer[np.ndarray, "z y x"], Grid]:
    """Read channels and labels of a case of an nnU-Net raw dataset, in pretraining's orientation.

    Args:
        raw: `nnUNet_raw/DatasetXXX`.
        case: identifier.
        channels: their numbers.
        ending: of the files.

    Returns:
        The voxels of the channels as the files store them, the labels, and their grid.

    Raises:
        ValueError: images that cannot be used, e.g. with NaN, or labels that are no whole numbers.
    """
    label_file = raw / "labelsTr" / f"{case}{ending}"
    truth = read_labels(label_file)
    grid = upright(truth.grid)  # the orientation that pretraining has seen
    files = [raw / "imagesTr" / f"{case}_{number:04d}{ending}" for number in channels]
    if ending in (".nii", ".nii.gz"):
        problem = find_problem({file.name: file for file in files})
        if problem:
            raise InputError(f"case {case} of {raw}: {problem}")
    images = [read_on_grid(file, grid).astype(np.float32) for file in files]
    return images, reorient(truth.labels, truth.grid, grid), grid


def frozen_eval(encoder: Encoder) -> Encoder:
    """Freeze an encoder, in evaluation mode, on the GPU if there is one."""
    encoder.requires_grad_(False).eval()
    if torch.cuda.is_available():
        encoder.cuda()
    else:
        keep_freed_memory()
        encoder.set_fused_attention(False)
    return encoder


def device_of(encoder: Encoder) -> torch.device:
    """Return the device of an encoder."""
    return next(encoder.parameters()).device
