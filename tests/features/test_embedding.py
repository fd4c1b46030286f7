import numpy as np
import pytest
import torch

from nnunet_fm.encoders import build_encoder
from nnunet_fm.features.embedding import embed_volumes

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_batches_cross_volumes_and_do_not_mix_them(batch: int) -> None:
    encoder = build_encoder("dinov3_test16", taps=(1, 3)).eval()
    rng = np.random.default_rng(0)
    slices = {"a": 2, "b": 5, "c": 1}
    volumes: list[tuple[str, np.ndarray | str]] = [
        (key, rng.standard_normal((count, 32, 32)).astype(np.float16))
        for key, count in slices.items()
    ]
    volumes.insert(1, ("bad", "unreadable"))
    results = dict(embed_volumes(encoder, volumes, "float32", batch, CPU))
    assert results.pop("bad") == "unreadable"
    assert list(results) == list(slices)
    for key, volume in volumes:
        if isinstance(volume, str):
            continue
        x = torch.from_numpy(volume).float()[:, None].expand(-1, 3, -1, -1)
        with torch.no_grad():
            expected = encoder.embed_taps(x)
        assert len(results[key]) == 2
        for layer, vectors in zip(results[key], expected, strict=True):
            np.testing.assert_allclose(layer, vectors, rtol=1e-4, atol=1e-5)


def test_a_3d_encoder_gives_a_vector_per_volume() -> None:
    encoder = build_encoder("volume_test16").eval()
    volumes = [(key, np.ones((32, 32, 32), np.float16)) for key in "ab"]
    results = dict(embed_volumes(encoder, volumes, "bfloat16", 64, CPU))
    assert {key: [v.shape[0] for v in layers] for key, layers in results.items()} == {
        "a": [1] * len(encoder.embedded_layers),
        "b": [1] * len(encoder.embedded_layers),
    }


def test_an_encoder_of_slabs_sees_the_neighbours_of_every_slice() -> None:
    options = {"sequences": None, "slices": 3}
    encoder = build_encoder("brainfound_test14", init_values=1.0, **options).eval()  # CLS sees all
    volume = np.random.default_rng(0).standard_normal((4, 28, 28)).astype(np.float16)
    ((_, vectors),) = embed_volumes(encoder, [("a", volume)], "float32", 3, torch.device("cpu"))
    x = torch.from_numpy(volume).float()
    slabs = torch.stack([x[[0, 0, 1]], x[[0, 1, 2]], x[[1, 2, 3]], x[[2, 3, 3]]])
    assert not isinstance(vectors, str)
    np.testing.assert_allclose(vectors[-1], encoder.embed(slabs).detach(), atol=1e-4)


def test_a_pyramid_gives_the_vector_of_every_slice() -> None:
    encoder = build_encoder("dinov3_convnext_test").eval()
    volume = np.random.default_rng(0).standard_normal((3, 32, 64)).astype(np.float16)
    ((_, vectors),) = embed_volumes(encoder, [("a", volume)], "float32", 2, CPU)
    x = torch.from_numpy(volume).float()[:, None].expand(-1, 3, -1, -1)
    assert len(vectors) == 1
    np.testing.assert_allclose(vectors[0], encoder.embed(x).detach(), rtol=1e-4, atol=1e-4)
