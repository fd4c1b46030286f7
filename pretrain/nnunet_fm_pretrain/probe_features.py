"""What probes are fed: tokens of a frozen encoder, or raw pixels, of volumes and of patches."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, pad, unfold

from nnunet_fm.device import keep_freed_memory
from nnunet_fm.encoders import Encoder
from nnunet_fm.encoders.timm_vit import TimmViT
from nnunet_fm_pretrain.preprocessing import Preprocessing, normalised, preprocess
from nnunet_fm_pretrain.probes import Features
from nnunet_fm_pretrain.volumes import canonical, read_volume

BATCH = 64


def volume_features(encoder: Encoder | None, paths: Sequence[Path], options: Preprocessing, side: int = 16) -> Features:
    """A row per volume: the mean over its slices of the CLS token, or of the raw pixels if there is no encoder.

    Args:
        encoder: frozen; None: slices shrunk to `side` x `side` pixels.
        paths: NIfTI files or DICOM folders.
        options: preprocessing, as in pretraining.
        side: see `encoder`.
    """
    rows = []
    for path in paths:
        volume, _ = read_volume(path)
        slices, _ = preprocess(volume, volume != 0, options)
        x = torch.from_numpy(slices)[:, None]
        with torch.inference_mode():
            if encoder is None:
                rows.append(interpolate(x, size=(side, side), mode="area").mean(0).flatten().numpy())
            else:
                parts = [encoder.embed(part.expand(-1, 3, -1, -1)) for part in x.split(BATCH)]
                rows.append(torch.cat(parts).mean(0).numpy())
    return np.stack(rows)


def patch_features(
    encoder: Encoder | None, images: Float[np.ndarray, "c z h w"], patch: int, context: int | None = None
) -> Features:
    """A row per patch of a case: the tokens of each channel, side by side, or raw pixels if there is no encoder.

    Args:
        encoder: frozen; its last tapped block is used.
        images: channels of a case, z-scored.
        patch: side of a patch in pixels.
        context: side of the window of pixels around the patch, if there is no encoder; the patch itself if None.
    """
    x = torch.from_numpy(images)
    with torch.inference_mode():
        if encoder is None:
            border = ((context or patch) - patch) // 2
            padded = pad(x.transpose(0, 1), (border,) * 4)
            return unfold(padded, patch + 2 * border, stride=patch).transpose(1, 2).flatten(0, 1).numpy()
        channels = []
        for channel in x:
            parts = [encoder.features(p[:, None].expand(-1, 3, -1, -1))[-1] for p in channel.split(BATCH)]
            channels.append(torch.cat(parts).flatten(2).transpose(1, 2).flatten(0, 1))
        return torch.cat(channels, dim=1).numpy()


def patch_labels(labels: Integer[np.ndarray, "z h w"], patch: int) -> Integer[np.ndarray, " n"]:
    """1 for patches of which at least half is labelled."""
    share = avg_pool2d((torch.from_numpy(labels.astype(np.int64)) > 0).float()[:, None], patch)
    return (share.flatten() >= 0.5).long().numpy()


def read_case(
    raw: Path, case: str, channels: int, ending: str, size: int
) -> tuple[Float[np.ndarray, "c z h w"], Integer[np.ndarray, "z h w"]]:
    """Channels (clipped, z-scored over non-zero voxels) and labels of a case of an nnU-Net raw dataset.

    Args:
        raw: `nnUNet_raw/DatasetXXX`.
        case: identifier.
        channels: how many there are.
        ending: of the files.
        size: slices are resized to this side.
    """
    images = []
    for channel in range(channels):
        voxels = _canonical_voxels(raw / "imagesTr" / f"{case}_{channel:04d}{ending}").astype(np.float32)
        images.append(normalised(voxels, voxels != 0).transpose(2, 1, 0))
    labels = _canonical_voxels(raw / "labelsTr" / f"{case}{ending}").transpose(2, 1, 0)
    resized = interpolate(torch.from_numpy(np.stack(images)), size=(size, size), mode="bilinear", antialias=True)
    small = interpolate(torch.from_numpy(labels.astype(np.float32))[:, None], size=(size, size), mode="nearest-exact")
    return resized.numpy(), small[:, 0].numpy().astype(np.int64)


def _canonical_voxels(path: Path) -> Shaped[np.ndarray, "x y z"]:
    """Voxels in the orientation that pretraining has seen."""
    return np.asarray(canonical(nib.load(path)).dataobj)


def quiet(encoder: Encoder) -> Encoder:
    """The encoder frozen, in evaluation mode, with the attention that is fast on this machine."""
    cast(nn.Module, encoder).requires_grad_(False).eval()
    if not torch.cuda.is_available():
        keep_freed_memory()
        if isinstance(encoder, TimmViT):
            encoder.set_fused_attention(False)
    return encoder
