"""Volumes on a cube, and the slices that are drawn from them."""

import numpy as np

from nnunet_fm_pretrain.data.preprocessing import Preprocessing, draw_slices, preprocess
from nnunet_fm_pretrain.data.slice_store import SliceStore


def test_slices_are_scored_and_the_background_is_zero(store: SliceStore) -> None:
    assert (len(store), store.size, len(store.records)) == (96, 32, 12)
    for record in store.records:
        slices = store.read_volume(record)
        assert slices.shape == (8, 32, 32)
        inside = slices[slices != 0]
        assert abs(inside.mean()) < 0.3
        assert 0.7 < inside.std() < 1.3
        assert (slices[:, 0, 0] == 0).all()
        assert list(record.slices) == sorted(set(record.slices))
    index = 8 * 3 + 5
    record, place = store.locate(index)
    assert np.array_equal(store.read(index), store.read_volume(record)[place])


def test_the_whole_cube_is_scored_exactly() -> None:
    rng = np.random.default_rng(0)
    volume = (rng.random((20, 24, 28)).astype(np.float32) + 1) * (rng.random((20, 24, 28)) > 0.2)
    cube, numbers = preprocess(volume, volume != 0, Preprocessing(size=24, slices=24))
    inside = cube[cube != 0]
    assert list(numbers) == list(range(24))
    assert abs(inside.mean()) < 1e-5
    assert abs(inside.std() - 1) < 1e-5


def test_slices_are_drawn_around_the_middle_and_by_content() -> None:
    options = Preprocessing(size=256, slices=128)
    drawn = [draw_slices([np.full((4, 4, 4), float(i))], options) for i in range(40)]
    together = np.concatenate(drawn)
    assert 120 < together.mean() < 136
    weights = np.exp(-0.5 * ((np.arange(256) - 128) / 50) ** 2)
    likely = np.bincount(together, minlength=256)
    assert np.corrcoef(likely, weights)[0, 1] > 0.9
    assert all(len(set(d)) == 128 for d in drawn)
    assert not np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], draw_slices([np.full((4, 4, 4), 0.0)], options))
