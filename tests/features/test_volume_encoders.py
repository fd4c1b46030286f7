"""Every 3-D encoder: features in the cache, nearest neighbours, a linear head and CKA."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tables import write_table, write_volume_file
from nnunet_fm.encoders import build_encoder
from nnunet_fm.features import FeatureCache, read_table
from nnunet_fm.features.cka import align
from nnunet_fm.features.extraction import extract
from nnunet_fm.features.opening import open_encoder
from nnunet_fm.heads.models import fit
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import Task

ENCODERS: dict[str, dict[str, Any]] = {
    "volume_test16": {},
    "volume_testbmmae": {"modalities": ["T1"]},
    "volume_testuniformer": {},
    "volume_testprimus": {},
    "brainfm_test8": {"modalities": ["T1"]},
    "volta3d_test8": {"summariser": True, "pool": "summary"},
    "volume_testswin": {},
    "prism_test12": {"branches": True, "pool": "anatomy"},
    "volume_testpyramid": {},
    "flexict_test8": {},
    "dinov3dneuro_test16": {},
    "3dino_test8": {},
}


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve subjects, half of them with longer heads."""
    folder, rows = tmp_path_factory.mktemp("subjects"), []
    for n in range(12):
        shape = (30, 24, 18) if n % 2 else (18, 24, 30)
        rows.append({"subject_id": f"s{n}", "sex": "mf"[n % 2], "T1": f"{n}.nii.gz"})
        write_volume_file(folder / f"{n}.nii.gz", n, shape)
    return write_table(folder / "t.csv", rows)


@pytest.fixture(scope="module")
def cache(subjects: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    cache = FeatureCache(tmp_path_factory.mktemp("cache"))
    for name, options in ENCODERS.items():
        how = {"shape": (32, 32, 32), "precision": "float32", "options": options}
        outcomes = extract(
            read_table(subjects), *open_encoder(name, **how), cache, batch=4, processes=0
        )
        assert not any(o.reason for o in outcomes)
    return cache


@pytest.mark.parametrize("name", ENCODERS)
def test_features_of_volumes_serve_neighbours_and_heads(
    name: str, cache: FeatureCache, subjects: Path
) -> None:
    names, x = cache.matrix(read_table(subjects), encoder=f"{name}_random0")
    assert x.shape == (12, build_encoder(name).feature_info[-1].channels)
    assert np.isfinite(x).all()
    assert np.ptp(x, axis=0).max() > 0
    sex = np.array([int(n.removeprefix("s")) % 2 for n in names])
    task, every = Task(target="sex", kind="classification"), np.ones(12, bool)
    targets = Targets(np.arange(12), sex.astype(float), every, ("m", "f"), 0)
    for model in ("knn_1", "linear"):
        answers = fit(model, task, x[:8], targets.of(np.arange(8)), 0).predict(x[8:])
        assert answers.shape == (4, 2)
        np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)


def test_encoders_of_volumes_are_aligned_with_each_other(
    cache: FeatureCache, subjects: Path
) -> None:
    table = read_table(subjects)
    (same,) = align(cache, table, "volume_testprimus_random0", "volume_testprimus_random0")
    assert same.cka == pytest.approx(1)
    (other,) = align(cache, table, "volume_testprimus_random0", "volume_testbmmae_random0")
    assert 0 <= other.cka < 1


def test_volumes_of_another_sequence_are_refused(
    cache: FeatureCache, subjects: Path, tmp_path: Path
) -> None:
    encoder, recipe = open_encoder(
        "volume_testbmmae", options={"modalities": ["FLAIR"]}, shape=(32, 32, 32)
    )
    with pytest.raises(
        ValueError, match="opened for FLAIR, and the table has T1; allowed: .* --modalities FLAIR"
    ):
        extract(read_table(subjects), encoder, recipe, cache, processes=0)


def test_an_encoder_of_named_channels_needs_the_sequence_of_the_volumes() -> None:
    with pytest.raises(
        ValueError,
        match="knows its channels by name, T1, T1c, T2, FLAIR, and a volume is one of them",
    ):
        open_encoder("volume_testbmmae")
    with pytest.raises(
        ValueError,
        match="FLAIR, T1, and a volume is one of them; allowed: an encoder of one channel",
    ):
        open_encoder("volume_testswin", options={"modalities": ["FLAIR", "T1"]})
