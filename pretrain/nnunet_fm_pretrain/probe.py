"""Probes of a frozen encoder on subjects it has not seen, beside random weights, raw pixels and the trivial answer.

Self-supervision has no validation loss that means anything; a linear probe that does not beat the same network with
random weights shows that nothing useful was learned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, pad, unfold

from nnunet_fm.device import keep_freed_memory
from nnunet_fm.encoders import Encoder
from nnunet_fm_pretrain.preprocessing import Preprocessing, preprocess
from nnunet_fm_pretrain.volumes import read_volume

Features = Float[np.ndarray, "n d"]
ALPHAS = tuple(10.0**e for e in range(-2, 6))
CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
BOOTSTRAPS = 2000
SAMPLED_PATCHES = 20_000
BATCH = 64


@dataclass(frozen=True)
class ProbeResult:
    """One number: which features, what was asked, the metric, its 95 % bootstrap interval over `n` subjects."""

    features: str
    target: str
    metric: str
    value: float
    low: float
    high: float
    n: int


def regression_probe(name: str, target: str, x: Features, y: Sequence[float], tested: Sequence[int]) -> ProbeResult:
    """Mean absolute error of ridge regression, each tested subject predicted from all others.

    Args:
        name: of the features.
        target: of the quantity.
        x: a row per subject.
        y: the quantity.
        tested: rows that are predicted; the subjects that pretraining has not seen.
    """
    values = np.asarray(y, float)
    errors = []
    for row in tested:
        others = np.arange(len(values)) != row
        model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS)).fit(x[others], values[others])
        errors.append(abs(float(model.predict(x[[row]])[0]) - values[row]))
    return _summary(name, target, "MAE", np.array(errors), lambda e: float(e.mean()))


def trivial_regression(target: str, y: Sequence[float], tested: Sequence[int]) -> ProbeResult:
    """Mean absolute error of predicting the mean of all others."""
    values = np.asarray(y, float)
    errors = np.array([abs(np.delete(values, row).mean() - values[row]) for row in tested])
    return _summary("mean of the others", target, "MAE", errors, lambda e: float(e.mean()))


def classification_probe(name: str, target: str, x: Features, y: Sequence[str], tested: Sequence[int]) -> ProbeResult:
    """Area under the ROC curve of logistic regression for a target of two values, predicted as in `regression_probe`.

    Raises:
        ValueError: another number of values, or one only among the tested.
    """
    classes = sorted(set(y))
    truth = np.array([classes.index(v) for v in y])
    if len(classes) != 2 or len(set(truth[list(tested)])) != 2:
        raise ValueError(f"target {target!r} has the values {classes}; allowed: two, both among the tested subjects")
    scores = []
    for row in tested:
        others = np.arange(len(truth)) != row
        scores.append(_logistic(x[others], truth[others]).decision_function(x[[row]])[0])
    pairs = np.stack([truth[list(tested)], scores], axis=1)
    return _summary(name, target, "AUC", pairs, lambda p: float(roc_auc_score(p[:, 0], p[:, 1])))


def _logistic(x: Features, y: np.ndarray) -> Any:
    """Logistic regression; its penalty is chosen by the inner folds' log-likelihood."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    losses = []
    for c in CS:
        likelihood = 0.0
        for train, test in folds.split(x, y):
            inner = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(x[train], y[train])
            likelihood += float(inner.predict_log_proba(x[test])[np.arange(len(test)), y[test]].sum())
        losses.append(-likelihood)
    best = CS[int(np.argmin(losses))]
    return make_pipeline(StandardScaler(), LogisticRegression(C=best, max_iter=2000)).fit(x, y)


def dense_probe(
    name: str,
    train: Sequence[tuple[Features, Shaped[np.ndarray, " n"]]],
    test: Sequence[tuple[Features, Shaped[np.ndarray, " n"]]],
    target: str = "lesion patches",
    seed: int = 0,
) -> ProbeResult:
    """Average precision of logistic regression on patches; the interval is over test patients.

    Args:
        name: of the features.
        train: features and labels (0 or 1) of the patches of each training patient.
        test: the same of each test patient.
        target: what the labels mark.
        seed: of the draw of training patches.
    """
    x, y = np.concatenate([p[0] for p in train]), np.concatenate([p[1] for p in train])
    chosen = np.random.default_rng(seed).permutation(len(x))[:SAMPLED_PATCHES]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(x[chosen], y[chosen])
    scored = [np.stack([labels, model.decision_function(rows)], axis=1) for rows, labels in test]

    def pooled(patients: Integer[np.ndarray, " p"]) -> float:
        both = np.concatenate([scored[int(p)] for p in patients])
        return float(average_precision_score(both[:, 0], both[:, 1]))

    return _summary(name, target, "AP", np.arange(len(test)), pooled, bootstraps=500)


def volume_features(
    encoder: Encoder | None, paths: Sequence[Path], options: Preprocessing, side: int = 16
) -> Features:
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
        voxels = np.asarray(nib.load(raw / "imagesTr" / f"{case}_{channel:04d}{ending}").dataobj, np.float32)
        inside = voxels != 0
        values = np.clip(voxels[inside], *np.percentile(voxels[inside], (0.5, 99.5)))
        scored = np.zeros_like(voxels)
        scored[inside] = (values - values.mean()) / max(float(values.std()), 1e-6)
        images.append(scored.transpose(2, 1, 0))
    labels = np.asarray(nib.load(raw / "labelsTr" / f"{case}{ending}").dataobj).transpose(2, 1, 0)
    resized = interpolate(torch.from_numpy(np.stack(images)), size=(size, size), mode="bilinear", antialias=True)
    small = interpolate(torch.from_numpy(labels.astype(np.float32))[:, None], size=(size, size), mode="nearest-exact")
    return resized.numpy(), small[:, 0].numpy().astype(np.int64)


def quiet(encoder: Encoder) -> Encoder:
    """The encoder frozen, in evaluation mode, with the attention that is fast on this machine."""
    module = cast(nn.Module, encoder).requires_grad_(False).eval()
    if not torch.cuda.is_available():
        keep_freed_memory()
        if hasattr(module, "set_fused_attention"):
            module.set_fused_attention(False)
    return encoder


def _summary(
    features: str,
    target: str,
    metric: str,
    rows: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    bootstraps: int = BOOTSTRAPS,
) -> ProbeResult:
    """The statistic with its percentile bootstrap interval over rows; resamples of one class are left out."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(bootstraps):
        sample = rows[rng.integers(len(rows), size=len(rows))]
        if metric != "AUC" or len(set(sample[:, 0])) == 2:
            drawn.append(statistic(sample))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return ProbeResult(features, target, metric, statistic(rows), float(low), float(high), len(rows))


def markdown(results: Sequence[ProbeResult]) -> str:
    """A table, a line per result."""
    lines = ["| target | metric | features | value | 95 % interval | n |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.target} | {r.metric} | {r.features} | {r.value:.3f} | {r.low:.3f} to {r.high:.3f} | {r.n} |"
        for r in results
    ]
    return "\n".join(lines)


