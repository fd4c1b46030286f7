"""The batched predictor against nnU-Net's own."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from nnunetv2.inference import predict_from_raw_data as stock

from helpers.networks import small
from helpers.nnunet import Run, labels_in, predict_words, stock_words
from nnunet_fm.nnunet.predictor import BatchedPredictor


def predictor(kind: Any, patch: int = 32, regions: bool = False, **arguments: Any) -> Any:
    made = kind(device=torch.device("cpu"), allow_tqdm=False, **arguments)
    made.network = small().eval()
    made.configuration_manager = SimpleNamespace(patch_size=[patch, patch])
    made.label_manager = SimpleNamespace(num_segmentation_heads=3, has_regions=regions)
    made.allowed_mirroring_axes = (0, 1)
    return made


@pytest.mark.parametrize(
    ("patch", "least", "most"), [((64, 64), 0.005, 0.03), ((32,) * 3, 0.4, 0.5)]
)
def test_stock_sums_are_off_by_what_the_docs_say(
    patch: tuple[int, ...], least: float, most: float
) -> None:
    logits = torch.rand(patch, generator=torch.Generator().manual_seed(0)) * 5 - 2.5
    weight = stock.compute_gaussian(
        patch, sigma_scale=1 / 8, value_scaling_factor=10, device=torch.device("cpu")
    )
    summed = torch.zeros(patch, dtype=torch.half)
    summed += logits * weight  # one tile, as nnU-Net adds it
    error = (summed / weight - logits).abs().max()
    assert least < error <= most


@pytest.mark.parametrize("mirroring", [True, False])
@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("shape", [(5, 32, 32), (3, 50, 70), (2, 20, 40)])
def test_logits_equal_the_stock_ones(
    shape: tuple[int, ...], gaussian: bool, mirroring: bool
) -> None:
    data = torch.randn(4, *shape)
    choice = {"use_mirroring": mirroring, "use_gaussian": gaussian}
    with mock.patch.object(
        stock.torch, "half", torch.float32
    ):  # stock sums in half precision: widen it
        expected = predictor(stock.nnUNetPredictor, **choice).predict_sliding_window_return_logits(
            data
        )
    ours = predictor(BatchedPredictor, precision="float32", pixels_per_batch=5 * 32 * 32, **choice)
    found = ours.predict_sliding_window_return_logits(data)
    assert found.shape == expected.shape == (3, *shape)
    assert float((found - expected).abs().max()) < 1e-4
    assert float(expected.abs().max()) > 0.1


def test_any_batch_size_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data, results, calls = torch.randn(4, 6, 32, 32), [], []
    for pixels in (1, 7 * 32 * 32, 1 << 30):
        made = predictor(BatchedPredictor, precision="float32", pixels_per_batch=pixels)
        made.network.register_forward_pre_hook(lambda _, x: calls.append(len(x[0])))
        results.append(made.predict_sliding_window_return_logits(data))
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])
    assert calls == [1] * 24 + [4] * 6 + [
        24
    ]  # one at a time; four mirrored copies; everything at once


def test_enlarged_slices_take_more_of_the_budget() -> None:
    made, calls = predictor(BatchedPredictor, pixels_per_batch=16 * 32 * 32), []
    made.network = small(encoder_scale=2).eval()
    made.network.register_forward_pre_hook(lambda _, x: calls.append(len(x[0])))
    made.predict_sliding_window_return_logits(torch.randn(4, 4, 32, 32))
    assert calls == [4] * 4


def test_a_full_gpu_halves_the_batch() -> None:
    data, calls = torch.randn(4, 4, 32, 32), []
    exact = predictor(BatchedPredictor, precision="float32").predict_sliding_window_return_logits(
        data
    )

    def limited(_: Any, given: tuple) -> None:
        calls.append(len(given[0]))
        if len(given[0]) > 5:
            raise torch.OutOfMemoryError

    made = predictor(BatchedPredictor, precision="float32")
    made.network.register_forward_pre_hook(limited)
    torch.testing.assert_close(made.predict_sliding_window_return_logits(data), exact)
    assert calls[:3] == [16, 16, 16] or max(calls[2:]) <= 16
    assert max(calls[-2:]) <= 5


def test_logits_that_are_not_finite_are_an_error() -> None:
    made = predictor(BatchedPredictor, precision="float32")
    made.network.decoder.head.bias.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="NaN or infinite logits in float32"):
        made.predict_sliding_window_return_logits(torch.randn(4, 2, 32, 32))


def test_bfloat16_agrees() -> None:
    data = torch.randn(4, 4, 32, 32)
    exact = predictor(BatchedPredictor, precision="float32").predict_sliding_window_return_logits(
        data
    )
    made = predictor(BatchedPredictor, precision="bfloat16")
    fast = made.predict_sliding_window_return_logits(data)
    assert made.network.precision == "bfloat16"
    assert not torch.equal(fast, exact)
    assert float((fast - exact).abs().max()) < 0.05 * float(exact.abs().max())


@pytest.mark.parametrize("regions", [False, True])
def test_background_is_skipped_only_when_asked(regions: bool) -> None:
    data = torch.randn(4, 6, 32, 32)
    data[:, 1:3] = torch.tensor([0.0, -1.0, 2.0, 0.0])[:, None, None, None]
    full = predictor(BatchedPredictor, precision="float32").predict_sliding_window_return_logits(
        data
    )
    made = predictor(BatchedPredictor, regions=regions, precision="float32", skip_background=True)
    skipped = made.predict_sliding_window_return_logits(data)
    kept = [0, 3, 4, 5]
    torch.testing.assert_close(skipped[:, kept], full[:, kept])
    labels = (skipped > 0).any(0) if regions else skipped.argmax(0)
    assert not labels[1:3].any()


def test_nan_voxels_are_refused() -> None:
    data = torch.randn(4, 2, 32, 32)
    data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite voxels"):
        predictor(BatchedPredictor).predict_sliding_window_return_logits(data)


def test_other_networks_are_left_to_stock() -> None:
    made = predictor(BatchedPredictor)
    made.network = torch.nn.Conv2d(4, 3, 1)
    assert made.predict_sliding_window_return_logits(torch.randn(4, 2, 32, 32)).shape == (
        3,
        2,
        32,
        32,
    )


def test_predictions_equal_those_of_nnunetv2_predict(
    stock_prediction: Path, images: Path, run: Run, tmp_path: Path
) -> None:
    shutil.copytree(images, tmp_path / "in")
    (tmp_path / "in/stray.nii.gz").write_bytes(next(images.glob("*.nii.gz")).read_bytes())
    out = tmp_path / "out"
    words = predict_words(
        tmp_path / "in", out, *stock_words(), "--save_probabilities", "--precision", "float32"
    )
    said = run("nnunet-fm", "predict", *words, expect=1).stdout
    assert "precision float32 (asked for)" in said
    assert "not predicted: stray.nii.gz: not named CASE_0000.nii.gz" in said
    assert "Not predicted, for the reasons above: stray.nii.gz." in said
    stock, ours = labels_in(stock_prediction), labels_in(out)
    assert list(stock) == list(ours)
    assert len(ours) == 2
    for name in stock:
        assert (stock[name] == ours[name]).mean() > 0.999  # stock sums in half precision
        case = name.removesuffix(".nii.gz")
        p, q = (
            np.load(folder / f"{case}.npz")["probabilities"] for folder in (stock_prediction, out)
        )
        assert np.abs(p - q).max() < 2e-3


def test_the_best_checkpoint_predicts_with_its_encoder_file(
    trained: Path, images: Path, run: Run, tmp_path: Path, encoder_file: Path
) -> None:
    best = predict_words(images, tmp_path / "best", *stock_words(), "-chk", "checkpoint_best.pth")
    run("nnUNetv2_predict", *best)
    assert len(labels_in(tmp_path / "best")) == 2
    encoder_file.rename(encoder_file.with_suffix(".moved"))
    try:
        said = run("nnUNetv2_predict", *best, expect=1).stdout
        assert "is missing" in said
        final = predict_words(images, tmp_path / "final", *stock_words())
        run("nnUNetv2_predict", *final)  # the final checkpoint needs no encoder file
    finally:
        encoder_file.with_suffix(".moved").rename(encoder_file)
