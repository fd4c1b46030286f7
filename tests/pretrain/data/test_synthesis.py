import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_fm.encoders import load_encoder
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import Preprocessing
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.data.synthesis import make_subject, synthesise
from nnunet_fm_pretrain.methods.recipes import parse_recipe, read_recipe

SHAPE = (10, 48, 44)


def test_a_subject_is_a_function_of_its_seed() -> None:
    one, again, other = make_subject(3, SHAPE), make_subject(3, SHAPE), make_subject(4, SHAPE)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert len(one) == 4


def test_sequences_are_registered_and_of_unlike_contrast() -> None:
    correlations, heads = [], 0
    for seed in range(6):
        one, other, *_ = make_subject(seed, SHAPE)
        assert np.array_equal(one > 0, other > 0)
        inside = one > 0
        heads += inside.mean() > 0.6
        correlations.append(abs(np.corrcoef(one[inside], other[inside])[0, 1]))
        assert np.isfinite(one).all()
    assert min(correlations) < 0.6
    assert 0 < heads < 6  # with and without a skull


def test_synthetic_brains_go_into_a_store(tmp_path: Path) -> None:
    table = synthesise(tmp_path / "brains", 2, first_seed=5, processes=1)
    outcomes = prepare(
        table,
        PrepareOptions(tmp_path / "store", Preprocessing(32, 8), registered=True),
        processes=1,
    )
    assert all(o.record for o in outcomes)
    store = SliceStore(tmp_path / "store")
    assert store.subjects() == ["synthetic/S000005", "synthetic/S000006"]
    assert len(store.registered(store.records[0])) == 4
    assert store.records[0].licence.startswith("CC0")
    with pytest.raises(ValueError, match="0 subjects; allowed: 1 or more"):
        synthesise(tmp_path, 0)


def test_the_recipe_of_the_bundled_weights_is_the_shipped_one() -> None:
    _, report = load_encoder("synth_vitt16")
    assert parse_recipe(json.loads(report.about["recipe"]), "weights") == read_recipe(
        "synth_vitt16"
    )
    assert report.about["datasets"] == "synthetic"
