"""Sessions of a volume store: which scans are taken, in what order and where in the cube."""

from copy import copy
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from helpers.pretraining import small_brainfm_recipe
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.methods.brainfm.batches import SessionBatches
from nnunet_fm_pretrain.methods.brainfm.recipe import SessionRecipe
from nnunet_fm_pretrain.methods.brainfm.sessions import SessionOrder, SessionSource, centred
from nnunet_fm_pretrain.methods.recipes import parse_recipe
from nnunet_fm_pretrain.methods.registry import get_method


def session_recipe(**changes: Any) -> SessionRecipe:
    plain = {"names": ("T1", "T2", "FLAIR"), "size": 32, "flip": 0, "scale": 0}
    return SessionRecipe(**{**plain, **changes})


def test_scans_are_padded_and_cropped_around_their_middle() -> None:
    volume = np.arange(4 * 2 * 5, dtype=np.float32).reshape(4, 2, 5) + 1
    cube, inside = centred(volume, 4)
    assert inside.tolist() == [[0, 4], [1, 3], [0, 4]]
    assert np.array_equal(cube[:, 1:3], volume[:, :, :4])
    assert not cube[:, 0].any()
    assert not cube[:, 3].any()


def test_a_session_gives_its_own_scans(scans: VolumeStore) -> None:
    source = SessionSource(scans, session_recipe())
    assert source.counts() == [3, 1, 2, 2, 1, 2]
    rng = np.random.default_rng(0)
    for number, session in enumerate(source.sessions):
        for record, scan in zip(session, source.read(number, rng), strict=True):
            assert ("T1", "T2", "FLAIR")[scan.name] == record.sequence
            box = tuple(slice(*bounds) for bounds in scan.inside)
            assert np.array_equal(scan.voxels[box], scans.read_volume(record))
            assert scan.inside.tolist() == [[6, 26], [4, 28], [2, 30]]


def test_a_session_is_mirrored_as_a_whole(scans: VolumeStore) -> None:
    plain = SessionSource(scans, session_recipe()).read(0, np.random.default_rng(0))
    mirrored = SessionSource(scans, session_recipe(flip=1)).read(0, np.random.default_rng(0))
    for scan, other in zip(plain, mirrored, strict=True):
        assert np.array_equal(scan.voxels[:, :, ::-1], other.voxels)


def test_a_mirrored_scan_lies_where_it_is_mirrored_to(
    scans: VolumeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SessionSource(scans, session_recipe(flip=1))
    monkeypatch.setattr(scans, "read_volume", lambda record: np.ones((20, 24, 27), np.float32))
    for scan in source.read(0, np.random.default_rng(0)):
        assert scan.inside.tolist() == [[6, 26], [4, 28], [3, 30]]
        assert np.flatnonzero(scan.voxels.any((0, 1))).tolist() == list(range(3, 30))


def test_of_many_scans_some_are_drawn(scans: VolumeStore) -> None:
    source = SessionSource(scans, session_recipe(most=2))
    drawn = {
        tuple(scan.name for scan in source.read(0, np.random.default_rng(n))) for n in range(30)
    }
    assert {len(names) for names in drawn} == {2}
    assert len(drawn) == 3


def test_sessions_of_as_many_scans_share_a_batch() -> None:
    counts = [1, 4] * 40
    order = SessionOrder(counts, batch_size=4, seed=0)
    batches = [[order.index_of(n) for n in order.samples(step)] for step in range(60)]
    epochs = [list(chain(*batches[n : n + 20])) for n in (0, 20, 40)]
    assert all(sorted(epoch) == list(range(80)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    mixed = [len({counts[n] for n in batch}) > 1 for batch in batches]
    assert sum(mixed) < 10
    first = [counts[batch[0]] for batch in batches]
    assert first[:20] != sorted(first[:20])  # the batches are not sorted
    odd = SessionOrder(counts[:78], batch_size=4, seed=0)
    assert sorted(odd.index_of(n) for n in range(78, 156)) == list(range(78))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["T1", "FLAIRE"]}, "unknown modality 'FLAIRE'.*Did you mean FLAIR"),
        ({"names": ["T1", "T1"]}, "one twice"),
        ({"size": 30}, "for patches of 8 voxels; allowed: a multiple"),
    ],
)
def test_sessions_that_cannot_be(changes: dict[str, Any], message: str, scans: VolumeStore) -> None:
    with pytest.raises(ValueError, match=message):
        recipe: Any = parse_recipe(small_brainfm_recipe(sessions=changes), "test")
        SessionBatches(scans, recipe, 8)


@pytest.mark.parametrize("most", [1, 4])
def test_a_scan_within_one_patch_is_refused(most: int, scans: VolumeStore) -> None:
    """Of sessions of several scans, the only one at a step may be the small one."""
    store = copy(scans)
    small = "T2" if most == 1 else "T1"  # T2 is never the only scan of a session, T1 is
    store.records = [
        replace(record, shape=(8, 8, 8)) if record.sequence == small else record
        for record in scans.records
    ]
    recipe: Any = parse_recipe(small_brainfm_recipe(sessions={"size": 24, "most": most}), "test")
    with pytest.raises(ValueError, match="lies within one patch of 8 voxels; exclude it"):
        SessionBatches(store, recipe, 8)


def test_volumes_from_0_to_1_are_refused(unit_volumes: VolumeStore) -> None:
    with pytest.raises(ValueError, match="BrainFM-MRI takes z-scores. Type: nnunet-fm pretrain"):
        SessionSource(unit_volumes, session_recipe(names=("T1",)))


def test_doctor_counts_scans_and_names_those_unused(scans: VolumeStore) -> None:
    small = {"names": ["T1"], "size": 16}
    recipe = parse_recipe(small_brainfm_recipe(sessions=small), "test")
    found = [f"{f.level} {f.what}" for f in get_method("brainfm").check(recipe, scans)]
    assert found[0] == "ok 4 sessions with 4 scans: T1 4"
    assert found[1].startswith("warn 4 scans larger than sessions.size=16, cropped")
    assert found[2].startswith("warn 7 scans of other sequences, unused")


def test_batches_are_functions_of_seed_and_step(scans: VolumeStore) -> None:
    recipe: Any = parse_recipe(small_brainfm_recipe(), "test")
    first, again = (SessionBatches(scans, recipe, 8) for _ in range(2))
    again[0]
    for one, other in zip(first[3], again[3], strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first[2].visible[:, :64], first[3].visible[:, :64])
