"""CKA, compared with plain definitions and known values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_fm.features import FeatureCache, FeatureRecipe, read_table
from nnunet_fm.features.cka import align, debiased_cka, debiased_interval, linear_cka

RNG = np.random.default_rng


def test_the_plain_estimate_is_the_definition() -> None:
    x, y = RNG(0).standard_normal((30, 7)), RNG(1).standard_normal((30, 9)) + 5
    a, b = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-12)
    turned = (
        x @ np.linalg.qr(RNG(2).standard_normal((7, 7)))[0] * 3 + 1
    )  # rotation, scale and shift do not matter
    assert linear_cka(x, turned) == pytest.approx(1)
    assert debiased_cka(x, turned) == pytest.approx(1)


def test_the_debiased_estimate_is_the_mean_over_all_quadruples() -> None:
    """HSIC without bias is a U-statistic; five subjects have 120 ordered quadruples."""
    from itertools import permutations

    x, y = RNG(0).standard_normal((5, 3)), RNG(1).standard_normal((5, 4))

    def u_statistic(k: np.ndarray, m: np.ndarray) -> float:
        terms = [
            k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(5), 4)
        ]
        return float(np.mean(terms))

    a, b = x @ x.T, y @ y.T
    expected = u_statistic(a, b) / np.sqrt(abs(u_statistic(a, a) * u_statistic(b, b)))
    assert debiased_cka(x, y) == pytest.approx(expected, abs=1e-10)


def test_independent_features_are_unrelated_only_without_bias() -> None:
    x, y = RNG(0).standard_normal((200, 400)), RNG(1).standard_normal((200, 400))
    assert linear_cka(x, y) > 0.5
    assert abs(debiased_cka(x, y)) < 0.05
    low, high = debiased_interval(x, y)
    assert low < 0 < high
    shared = RNG(2).standard_normal((200, 20)) * 4
    related = debiased_cka(np.hstack([x, shared]), np.hstack([y, shared]))
    low, high = debiased_interval(np.hstack([x, shared]), np.hstack([y, shared]))
    assert 0.2 < low < related < high < 1.05


def test_unusable_features_are_refused() -> None:
    x = RNG(0).standard_normal((10, 3))
    with pytest.raises(ValueError, match="10 and 9 subjects; allowed: the same ones"):
        linear_cka(x, x[:9])
    with pytest.raises(ValueError, match="4 and 4 subjects; allowed: the same ones, more than 4"):
        debiased_cka(x[:4], x[:4])
    with pytest.raises(ValueError, match="nothing to align"):
        linear_cka(x, np.ones((10, 3)))


def test_visits_of_a_subject_are_not_subjects(tmp_path: Path) -> None:
    cache, rng = FeatureCache(tmp_path / "cache"), RNG(0)
    lines = ["subject_id,session_id,T1"]
    for n in range(60):
        for visit in range(3):
            (tmp_path / f"{n}_{visit}.nii").write_text(f"{n} {visit}")
            lines.append(f"s{n},{visit},{n}_{visit}.nii")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    table = read_table(tmp_path / "t.csv")
    for name in ("aa", "bb"):  # independent encoders; the visits of a subject are alike in each
        recipe = FeatureRecipe(
            name, name * 32, "vit", {}, (2,), "bfloat16", {"strip": "none", "shape": [4, 8, 8]}
        )
        own = {f"s{n}": rng.standard_normal(64).astype(np.float32) for n in range(60)}
        for row in table.rows:
            cache.write(recipe, cache.key_of(recipe, row, "T1"), {"pooled": own[row.subject][None]})
    (found,) = align(cache, table, "aa", "bb")
    assert found.n == 60
    assert abs(found.debiased) < 0.1


def test_layers_are_aligned_from_the_cache(tmp_path: Path, run: Any) -> None:
    table = tmp_path / "t.csv"
    for n in range(40):
        (tmp_path / f"{n}.nii").write_text(str(n))
    table.write_text("\n".join(["subject_id,T1", *(f"s{n},{n}.nii" for n in range(40))]))
    cache, rng = FeatureCache(tmp_path / "cache"), RNG(0)
    early, late = rng.standard_normal((2, 40, 6)).astype(np.float32)
    for name, noise in (("aa", 0.0), ("bb", 0.5)):
        recipe = FeatureRecipe(
            name, name * 32, "vit", {}, (2, 5), "bfloat16", {"strip": "none", "shape": [4, 8, 8]}
        )
        for n, row in enumerate(read_table(table).rows):
            pooled = np.stack([early[n], late[n]]) + noise * rng.standard_normal((2, 6)).astype(
                np.float32
            )
            cache.write(recipe, cache.key_of(recipe, row, "T1"), {"pooled": pooled})
    found = {
        (a.first_layer, a.second_layer): a for a in align(cache, read_table(table), "aa", "bb")
    }
    assert set(found) == {(2, 2), (2, 5), (5, 2), (5, 5)}
    assert min(found[2, 2].debiased, found[5, 5].debiased) > 0.6 > 0.3 > found[2, 5].debiased
    assert {a.n for a in found.values()} == {40}
    words = (
        "--first",
        "aa",
        "--second",
        "bb",
        "--cache",
        cache.folder,
        "-o",
        tmp_path / "o",
        "--layers",
        "5",
    )
    output = run("nnunet-fm", "analyse", "cka", table, *words).stdout
    assert f"{found[5, 5].cka:9.3f}{found[5, 5].debiased:10.3f}" in output
    assert (tmp_path / "o/cka.png").stat().st_size > 5000
    assert (tmp_path / "o/cka.csv").read_text().count("\n") == 2
