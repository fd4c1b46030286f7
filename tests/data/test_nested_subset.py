import pytest

from nnunet_fm.data.nested_subset import nested_subset

ITEMS = [f"case_{number}" for number in range(9)]


@pytest.mark.parametrize(
    ("order", "ratio", "expected"),
    [
        ("permutation", 0.3, "0 3"),
        ("permutation", 0.5, "0 2 3 7"),
        ("hash", 0.3, "4 5 8"),
        ("hash", 0.5, "0 4 5 6 8"),
    ],
)
def test_subsets_are_those_of_version_0_1(order: str, ratio: float, expected: str) -> None:
    subset = nested_subset(ITEMS, ratio, seed=42, order=order)  # type: ignore[arg-type]
    assert subset == [f"case_{number}" for number in expected.split()]


@pytest.mark.parametrize("order", ["permutation", "hash"])
def test_a_larger_share_contains_every_smaller_one(order: str) -> None:
    previous: set[str] = set()
    for ratio in (0.01, 0.2, 0.5, 0.8, 1.0):
        subset = nested_subset(ITEMS[::-1], ratio, seed=3, order=order)  # type: ignore[arg-type]
        assert previous <= set(subset)
        assert subset
        previous = set(subset)
    assert previous == set(ITEMS)


@pytest.mark.parametrize("ratio", [0, -0.1, 1.1])
def test_impossible_shares_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="allowed: above 0, up to 1"):
        nested_subset(ITEMS, ratio, seed=0, order="hash")
