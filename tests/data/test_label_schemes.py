"""The table of label schemes."""

from pathlib import Path

import pytest

from nnunet_fm.data.label_schemes import SCHEMES, BratsScheme, fitting_schemes, get_scheme

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_every_label_follows_from_the_trained_regions(scheme: BratsScheme) -> None:
    regions = [r for r in scheme.written_regions if r.name in scheme.trained]
    inside = {
        label: frozenset(region.name for region in regions if label in region.labels)
        for label in scheme.written.values()
    }
    assert frozenset() not in inside.values()
    assert len(set(inside.values())) == len(inside)
    assert sorted(scheme.class_order()) == sorted(scheme.written.values())
    assert sorted(scheme.written.values()) == list(range(1, len(scheme.labels) + 1))


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_the_page_describes_the_scheme(scheme: BratsScheme) -> None:
    pages = [page.read_text() for page in DOCS.rglob("*.md")]
    rows = [line for page in pages for line in page.splitlines() if f"| `{scheme.name}` |" in line]
    (row,) = (line for line in rows if line.startswith("|"))
    assert f"| {scheme.meaning} |" in row


def test_old_and_new_numbers_of_enhancing_tumour_are_scored_alike() -> None:
    regions = {region.name: region.labels for region in SCHEMES["gli2021"].scored_regions}
    assert regions == {"WT": (1, 2, 3, 4), "TC": (1, 3, 4), "ET": (3, 4)}
    assert {r.name: r.labels for r in SCHEMES["gli2023"].scored_regions}["ET"] == (3,)


def test_schemes_are_found_by_name_and_by_label() -> None:
    assert get_scheme("men").years == "2023, 2025"
    with pytest.raises(ValueError, match="unknown label scheme 'gli2022'. Did you mean gli"):
        get_scheme("gli2022")
    assert fitting_schemes([1, 2, 4]).startswith("gli2021 (1 NCR, 2 ED, 4 ET); gli2024, mets2025 (")
    assert fitting_schemes([7]) == ""
