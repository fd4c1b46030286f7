"""Label schemes of the BraTS challenges: found, checked, given, refused."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.brats_downloads import SINCE_2023, UNTIL_2021, Converter, write_case, write_labels
from nnunet_fm.data.label_schemes import SCHEMES
from nnunet_fm.experiments.datasets import Expected, check_expected

GLIOMA = {"whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3]}
CAVITY = {**GLIOMA, "resection cavity": [4]}
PAEDIATRIC = {
    "whole tumor": [1, 2, 3, 4],
    "tumor core": [1, 2, 3],
    "enhancing tumor": [1],
    "cystic component": [3],
}


@pytest.mark.parametrize(
    ("case", "labels", "endings", "scheme", "written", "regions"),
    [
        ("BraTS2021_00006", (1, 2, 4), UNTIL_2021, "gli2021", [0, 1, 2, 3], GLIOMA),
        ("BraTS20_Training_001", (1, 2, 4), UNTIL_2021, "gli2021", [0, 1, 2, 3], GLIOMA),
        ("Brats18_2013_2_1", (2, 4), UNTIL_2021, "gli2021", [0, 2, 3], GLIOMA),
        ("BraTS-GLI-00001-000", (1, 2, 3), SINCE_2023, "gli2023", [0, 1, 2, 3], GLIOMA),
        ("BraTS-GLI-02405-100", (1, 2, 3, 4), SINCE_2023, "gli2024", [0, 1, 2, 3, 4], CAVITY),
        ("BraTS-GLI-02405-100", (1, 2, 4), SINCE_2023, "gli2024", [0, 1, 2, 4], CAVITY),
        ("BraTS-GLI-00001-000", (1, 2, 3, 4), SINCE_2023, "gli2024", [0, 1, 2, 3, 4], CAVITY),
        ("BraTS-SSA-00002-000", (1, 2, 3), SINCE_2023, "ssa", [0, 1, 2, 3], GLIOMA),
        ("BraTS-MEN-00004-000", (1, 2, 3), SINCE_2023, "men", [0, 1, 2, 3], GLIOMA),
        ("BraTS-MET-00001-000", (1, 2, 3), SINCE_2023, "mets2023", [0, 1, 2, 3], GLIOMA),
        ("BraTS-MET-00001-000", (3, 4), SINCE_2023, "mets2025", [0, 3, 4], CAVITY),
        ("BraTS-PED-00001-000", (1, 2, 3, 4), SINCE_2023, "ped2024", [0, 1, 2, 3, 4], PAEDIATRIC),
        ("BraTS-GoAT-00000", (1, 2, 3), SINCE_2023, "goat", [0, 1, 2, 3], GLIOMA),
    ],
)
def test_each_challenge_has_its_labels(
    case: str,
    labels: Sequence[int],
    endings: Sequence[str],
    scheme: str,
    written: list[int],
    regions: dict[str, list[int]],
    convert: Converter,
) -> None:
    write_case(convert.source / case, labels, endings)
    code, printed = convert()
    assert code == 0, printed
    assert f"label scheme {scheme} (" in printed
    assert convert.labels(case) == written
    description = convert.description()
    assert description["label_scheme"] == scheme
    assert description["labels"] == {"background": 0, **regions}
    order = description["regions_class_order"]
    for label, own in zip(order, regions.values(), strict=True):
        assert label in own


def test_radiotherapy_cases_have_one_channel_and_one_label(convert: Converter) -> None:
    case = convert.source / "BraTS-MEN-RT-0001-1"
    write_labels(case / f"{case.name}_t1c.nii.gz")
    write_labels(case / f"{case.name}_gtv.nii.gz", (1, 1))
    assert convert()[0] == 0
    assert convert.description()["channel_names"] == {"0": "T1c"}
    assert convert.description()["labels"] == {"background": 0, "gross tumor volume": 1}


@pytest.mark.parametrize(
    ("case", "labels", "message"),
    [
        # of 2023 with ET = 3, or of 2024 with a cyst = 3
        ("BraTS-PED-00001-000", (1, 2, 3), "mean different things in ped2023"),
        # a cavity, or enhancing tumour of an older scheme under a new name
        ("BraTS-GLI-00001-000", (1, 2, 4), "either gli2024"),
        ("BraTS2021_00006", (1, 2, 3), "gli2021 has the labels 1 NCR, 2 ED, 4 ET, but"),
        ("BraTS-MEN-00004-000", (1, 4), "these labels fit gli2021"),
        ("patient7", (1, 2, 3), "not named as in any challenge"),
        ("patient7", (1, 2, 4), "not named as in any challenge"),
    ],
)
def test_unclear_labels_are_refused_until_a_scheme_is_given(
    case: str, labels: Sequence[int], message: str, convert: Converter
) -> None:
    write_case(convert.source / case, labels)
    code, printed = convert()
    assert code == 2
    assert message in printed
    assert "type --scheme NAME" in printed
    assert not list(convert.raw.iterdir())
    code, printed = convert("--scheme", "gli2021" if 4 in labels else "gli2023")
    assert code == 0
    assert "given" in printed
    assert 3 in convert.labels(case) or 3 not in labels


def test_a_given_scheme_has_to_fit(convert: Converter) -> None:
    write_case(convert.source / "patient7", (1, 2, 4))
    code, printed = convert("--scheme", "men")
    assert code == 2
    assert "patient7 have 1, 2, 4; these labels fit gli2021" in printed
    assert "unknown label scheme 'gli2012'. Did you mean" in convert("--scheme", "gli2012")[1]


def test_labels_of_one_case_decide_for_its_folder(convert: Converter) -> None:
    write_case(convert.source / "BraTS-PED-00001-000", (1, 2, 3))
    write_case(convert.source / "BraTS-PED-00002-000", (2, 4))
    assert "label scheme ped2024" in convert()[1]


def test_challenges_with_other_labels_do_not_go_together(convert: Converter) -> None:
    write_case(convert.source / "BraTS2021_00006", (1, 2, 4), UNTIL_2021)
    write_case(convert.source / "BraTS-PED-00002-000", (1, 2, 3, 4))
    code, printed = convert()
    assert code == 2
    assert "which do not go together" in printed


@pytest.mark.parametrize(
    ("recorded", "message"),
    [("gli2021", None), (None, None), ("gli2024", "has the label scheme gli2024")],
)
def test_sweeps_expect_a_scheme(recorded: str | None, message: str | None, tmp_path: Path) -> None:
    description = {
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "labels": SCHEMES["gli2021"].dataset_labels(),
        **({"label_scheme": recorded} if recorded else {}),  # version 0.1 wrote none
    }
    dataset = tmp_path / "Dataset005_X"
    write_labels(dataset / "gt_segmentations" / "a.nii.gz")
    (dataset / "dataset.json").write_text(json.dumps(description))
    expected = Expected(cases=1, scheme="gli2021")
    if message is None:
        check_expected(dataset, expected)
    else:
        with pytest.raises(ValueError, match=message):
            check_expected(dataset, expected)
