import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nnunet_fm.features import FeatureCache, FeatureRecipe, read_table
from nnunet_fm.features.cache import STALE_SECONDS

RECIPE = FeatureRecipe(
    "enc", "ab" * 32, "dinov3_test16", {"norm_eps": 1e-6}, (1, 3), "bfloat16", {"strip": "none"}
)


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    cls = {
        f"cls/{layer}": rng.standard_normal((4, 8)).astype(np.float16) for layer in RECIPE.layers
    }
    return cls | {"pooled": np.stack([c.mean(0, dtype=np.float32) for c in cls.values()])}


def test_entries_are_read_as_they_were_written(tmp_path: Path) -> None:
    cache, key = FeatureCache(tmp_path / "c"), RECIPE.key("input")
    assert cache.read(RECIPE, key) is None
    cache.write(RECIPE, key, arrays())
    found = cache.read(RECIPE, key, ("pooled", "cls/3"))
    assert found is not None
    assert np.array_equal(found["cls/3"], arrays()["cls/3"])
    assert np.array_equal(found["pooled"], arrays()["pooled"])
    assert FeatureCache(tmp_path / "c").recipes() == [RECIPE]
    shutil.move(tmp_path / "c", tmp_path / "moved")
    assert FeatureCache(tmp_path / "moved").read(RECIPE, key) is not None


def test_a_renamed_encoder_file_reuses_its_entries(tmp_path: Path) -> None:
    cache, key = FeatureCache(tmp_path), RECIPE.key("input")
    cache.write(RECIPE, key, arrays())
    again, renamed = FeatureCache(tmp_path), replace(RECIPE, name="renamed")
    assert again.read(renamed, key) is not None
    again.write(renamed, RECIPE.key("second"), arrays(1))
    assert len(again.entries(RECIPE)) == 2
    assert len(again.recipes()) == 1


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _foreign(path: Path) -> None:
    save_file(arrays(), path)


@pytest.mark.parametrize("damage", [_flip, _cut, _zero, _foreign])
def test_a_damaged_entry_is_quarantined_and_written_again(damage: object, tmp_path: Path) -> None:
    cache, key = FeatureCache(tmp_path), RECIPE.key("input")
    cache.write(RECIPE, key, arrays())
    assert [e.problem for e in cache.verify(RECIPE)] == [""]
    damage(cache.path(RECIPE, key))  # type: ignore[operator]
    assert [bool(e.problem) for e in cache.verify(RECIPE)] == [True]
    assert cache.read(RECIPE, key, ("pooled", "cls/1", "cls/3")) is None
    assert cache.entries(RECIPE) == []
    assert [p.name for p in cache.garbage()] == [f"{key}.safetensors.corrupt"]
    cache.write(RECIPE, key, arrays())
    assert cache.read(RECIPE, key) is not None


def test_an_entry_under_another_key_is_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.write(RECIPE, RECIPE.key("one"), arrays())
    path = cache.path(RECIPE, RECIPE.key("two"))
    path.parent.mkdir(exist_ok=True)
    shutil.copy(cache.path(RECIPE, RECIPE.key("one")), path)
    assert cache.read(RECIPE, RECIPE.key("two")) is None


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    for bad in (np.nan, np.inf):
        with pytest.raises(FloatingPointError, match=r"cls/1 has values that are not finite"):
            cache.write(
                RECIPE, RECIPE.key("input"), arrays() | {"cls/1": np.full((4, 8), bad, np.float16)}
            )
    assert not any(tmp_path.rglob("*.safetensors"))


def _write_until_killed(folder: str, first: int) -> None:
    cache = FeatureCache(folder)
    for number in range(first, first + 100_000):
        cache.write(RECIPE, RECIPE.key(str(number)), arrays(number))
        with open(f"{folder}/written", "a") as stream:
            stream.write(f"{number}\n")


def test_six_kills_while_writing_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for kill in range(6):
        written = tmp_path / "written"
        before = written.stat().st_size if written.exists() else 0
        writer = context.Process(target=_write_until_killed, args=(str(tmp_path), 1000 * kill))
        writer.start()
        while not written.exists() or written.stat().st_size <= before + 20:
            assert writer.is_alive()
            time.sleep(0.005)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
    cache = FeatureCache(tmp_path)
    numbers = [int(n) for n in written.read_text().split("\n") if n]
    assert len(numbers) >= 12
    assert not [e for e in cache.verify(RECIPE) if e.problem]
    for number in numbers:
        found = cache.read(RECIPE, RECIPE.key(str(number)))
        assert found is not None
        assert np.array_equal(found["pooled"], arrays(number)["pooled"])


def _write_all(folder: str) -> None:
    cache = FeatureCache(folder)
    for number in range(60):
        cache.write(RECIPE, RECIPE.key(str(number)), arrays(number))


def test_two_writers_at_once_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_all, args=(str(tmp_path),)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    cache = FeatureCache(tmp_path)
    assert len(cache.entries(RECIPE)) == 60
    assert not [e for e in cache.verify(RECIPE) if e.problem]


def test_garbage_is_files_of_killed_writers_and_entries_that_no_table_names(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    keys = [RECIPE.key(str(n)) for n in range(3)]
    for key in keys:
        cache.write(RECIPE, key, arrays())
    fresh, old = (cache.path(RECIPE, keys[0]).parent / f".{n}.host.1.tmp" for n in ("fresh", "old"))
    for path in (fresh, old):
        path.touch()
    os.utime(old, (time.time() - STALE_SECONDS - 1,) * 2)
    assert cache.garbage() == [old]
    assert cache.garbage({RECIPE.identity(): {keys[0], keys[2]}}) == [
        old,
        cache.path(RECIPE, keys[1]),
    ]


def test_a_recipe_is_found_by_name_or_hash_or_alone(tmp_path: Path) -> None:
    cache, other = FeatureCache(tmp_path), replace(RECIPE, layers=(3,))
    with pytest.raises(ValueError, match=r"holds no features; type `nnunet-fm features"):
        cache.recipe()
    cache.write(RECIPE, RECIPE.key("input"), arrays())
    assert cache.recipe() == RECIPE
    cache.write(other, other.key("input"), arrays())
    with pytest.raises(ValueError, match=r"holds features of 2 settings of encoder 'enc': enc \("):
        cache.recipe("enc")
    assert cache.recipe(other.identity()[:12]) == other
    assert {r.layers for r in cache.recipes()} == {(1, 3), (3,)}


def test_vectors_of_a_visit_are_averaged_or_joined_in_the_order_of_the_modalities(
    tmp_path: Path,
) -> None:
    lines = ["subject_id,T1,T2"]
    for number in range(3):
        names = [f"{number}_{sequence}.nii" for sequence in ("T1", "T2")]
        for name in names:
            (tmp_path / name).write_text(name)
        lines.append(f"s{number},{names[0]},{names[1] if number else ''}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    table, cache = read_table(tmp_path / "t.csv"), FeatureCache(tmp_path / "cache")
    for row in table.rows:
        for modality in row.volumes:
            seed = int(row.subject[1:]) + 10 * (modality == "T2")
            cache.write(RECIPE, cache.key_of(RECIPE, row, modality), arrays(seed))
    first, second = arrays(1)["pooled"][1], arrays(11)["pooled"][1]
    names, x = cache.matrix(table)
    assert names == ["s0", "s1", "s2"]
    assert np.allclose(x[1], (first + second) / 2)
    for modalities, expected in ((None, (first, second)), (("T2", "T1"), (second, first))):
        names, x = cache.matrix(table, modalities=modalities, fusion="concat")
        assert names == ["s1", "s2"]  # the other lacks T2
        assert np.array_equal(x[0], np.concatenate(expected))
