"""Slabs of slices: their channels, their neighbours, copies, and stores that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from helpers.pretraining import small_brainfound_recipe, write_volume_file
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import Preprocessing
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.methods.brainfound import METHOD
from nnunet_fm_pretrain.methods.brainfound.recipe import SlabRecipe
from nnunet_fm_pretrain.methods.brainfound.slabs import SlabSource
from nnunet_fm_pretrain.methods.recipes import parse_recipe

ALL = Preprocessing(size=28, slices=28)


def make_store(folder: Path, volumes: Path, options: Preprocessing = ALL, registered: bool = True):
    prepare(volumes, PrepareOptions(folder, options, registered=registered), processes=1)
    return SliceStore(folder)


def test_channels_are_sequences_and_their_slices_from_the_lowest_on(sessions: SliceStore) -> None:
    source = SlabSource(sessions, SlabRecipe(sequences=("T1", "FLAIR"), slices=3))
    assert source.channels == 6
    assert len(source) == len(source.stacks) * (28 - 2)
    stack, place = source.locate(26 + 5)
    assert (stack, place) == (source.stacks[1], 6)
    slab = source.read(26 + 5)
    assert slab.shape == (6, 28, 28)
    t1, flair = stack.records
    assert (t1.sequence, flair.sequence) == ("T1", "FLAIR")
    expected = [sessions.read_slice(r, p) for r in (t1, flair) for p in (5, 6, 7)]
    assert np.array_equal(slab, np.stack(expected))
    assert source.locate(0)[1] == 1
    assert source.locate(25)[1] == 26


def test_a_missing_sequence_is_a_copy_of_the_first_that_is_there(sessions: SliceStore) -> None:
    source = SlabSource(sessions, SlabRecipe(sequences=("FLAIR", "T1")))
    alone = [s for s in source.stacks if s.missing]
    assert [s.records[0].sequence for s in alone] == ["T1"]  # S05 has no FLAIR
    slab = source.read_slab(alone[0], 14)
    assert np.array_equal(slab[0], slab[1])
    assert source.describe_missing() == "sessions with FLAIR 5, T1 6, of 6"
    both = source.stacks[0]
    only = source.read_slab(both, 14, only=1)
    assert np.array_equal(only, np.stack([sessions.read_slice(both.records[1], 14)] * 2))


def test_every_volume_is_a_stack_where_no_sequence_is_named(sessions: SliceStore) -> None:
    source = SlabSource(sessions, SlabRecipe(sequences=None, slices=5))
    assert len(source.stacks) == 11
    assert source.read(0).shape == (5, 28, 28)


def test_neighbours_stay_in_the_volume(sessions: SliceStore) -> None:
    source = SlabSource(sessions, SlabRecipe(sequences=("T1",), slices=3))
    rng = np.random.default_rng(0)
    stack = source.stacks[0]
    assert {source.neighbour(stack, 1, rng) for _ in range(20)} == {2}
    assert {source.neighbour(stack, 26, rng) for _ in range(20)} == {25}
    assert {source.neighbour(stack, 9, rng) for _ in range(20)} == {8, 10}


def test_stores_that_do_not_fit_are_refused(
    sessions: SliceStore, volumes: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"no session of .* has T2; the store has FLAIR, T1"):
        SlabSource(sessions, SlabRecipe())
    few = make_store(tmp_path / "few", volumes, Preprocessing(size=28, slices=4))
    with pytest.raises(ValueError, match=r"has 4 slices, and slabs.slices=5 needs as many"):
        SlabSource(few, SlabRecipe(sequences=("T1",), slices=5))
    drawn = make_store(tmp_path / "drawn", volumes, Preprocessing(size=28, slices=8))
    SlabSource(drawn, SlabRecipe(sequences=("T1", "FLAIR")))
    with pytest.raises(ValueError, match=r"not adjacent; slabs.slices=3 needs .*--slices all"):
        SlabSource(drawn, SlabRecipe(sequences=("T1", "FLAIR"), slices=3))
    alone = make_store(tmp_path / "alone", volumes, registered=False)
    with pytest.raises(ValueError, match=r"S00.*lie on different grids; .*--registered"):
        SlabSource(alone, SlabRecipe(sequences=("T1", "FLAIR")))


def test_sessions_without_any_of_the_sequences_are_reported(tmp_path: Path) -> None:
    for name in ("S00/t1", "S01/flair"):
        write_volume_file(tmp_path / f"in/{name}.nii.gz", len(name))
    store = make_store(tmp_path / "store", tmp_path / "in", registered=False)
    source = SlabSource(store, SlabRecipe(sequences=("FLAIR",)))
    assert [name.split("/")[1] for name in source.unused] == ["S00"]
    recipe = parse_recipe(small_brainfound_recipe(slabs={"sequences": ["FLAIR"], "slices": 1}), "t")
    words = "\n".join(f"{f.what} {f.fix}" for f in METHOD.check(recipe, store))
    assert "sessions with FLAIR 1, of 1" in words
    assert "1 session with none of FLAIR, unused: " in words
