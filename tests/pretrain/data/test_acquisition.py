"""TR, TE, flip angle and body region of a scan, from tables, sidecars and DICOM."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.dicom import write_series
from helpers.pretraining import SMALL, write_volume_file
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.data.acquisition import Acquisition, from_cells, from_files
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.slice_store import SliceStore


def write_json(path: Path, **content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_row_of_a_table_gives_ms_and_degrees() -> None:
    cells = {"tr_ms": "2300", "te_ms": "2.98", "flip_angle_deg": "n/a", "region": "Brain"}
    assert from_cells(cells, "t.csv, line 2") == Acquisition(tr_ms=2300, te_ms=2.98, region="brain")
    assert from_cells({"subject_id": "1"}, "t.csv, line 2") == Acquisition()


@pytest.mark.parametrize("text", ["2.3 s", "0", "-1", "0.9", "2300000", "inf"])
def test_a_cell_that_is_no_possible_number_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="line 2: tr_ms .*allowed: a number from 1 to 60000"):
        from_cells({"tr_ms": text}, "t.csv, line 2")


@pytest.mark.parametrize(("column", "text"), [("te_ms", "0.09"), ("flip_angle_deg", "0.26")])
def test_seconds_and_radians_are_refused(column: str, text: str) -> None:
    with pytest.raises(InputError, match=f"{column} '{text}'; allowed: a number from"):
        from_cells({column: text}, "t.csv, line 2")


def test_a_sidecar_gives_seconds(tmp_path: Path) -> None:
    write_json(
        tmp_path / "scan.json",
        RepetitionTime=2.3,
        EchoTime=0.003,
        FlipAngle=9,
        BodyPartExamined="HEAD",
    )
    expected = Acquisition(tr_ms=2300, te_ms=3, flip_angle_deg=9, region="head")
    assert from_files(tmp_path / "scan.nii.gz") == expected
    assert from_files(tmp_path / "other.nii.gz") == Acquisition()


@pytest.mark.parametrize("name", ["T1w.json", "acq-a_T1w.json", "sub-7/sub-7_T1w.json"])
def test_a_sidecar_higher_in_a_bids_dataset_holds_for_the_images_below(
    name: str, tmp_path: Path
) -> None:
    write_json(tmp_path / "dataset_description.json", Name="x")
    write_json(tmp_path / name, RepetitionTime=2, EchoTime=0.004)
    write_json(tmp_path / "sub-8" / "sub-8_T1w.json", RepetitionTime=9)
    write_json(tmp_path / "acq-b_T1w.json", RepetitionTime=8)
    image = tmp_path / "sub-7" / "anat" / "sub-7_acq-a_T1w.nii.gz"
    write_json(image.with_name("sub-7_acq-a_T1w.json"), RepetitionTime=3)
    assert from_files(image) == Acquisition(tr_ms=3000, te_ms=4)


def test_values_of_another_unit_and_lists_are_unknown_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_json(tmp_path / "scan.json", RepetitionTime=2300, EchoTime=[0.01, 0.02], FlipAngle="9")
    with caplog.at_level(logging.WARNING):
        assert from_files(tmp_path / "scan.nii.gz") == Acquisition(flip_angle_deg=9)
    assert "RepetitionTime 2300 is not possible and taken as unknown" in caplog.text
    assert "EchoTime [0.01, 0.02] is not one number and taken as unknown" in caplog.text


def test_an_echo_after_the_repetition_is_another_unit_or_column(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError, match="te_ms 90 is not below tr_ms 8; allowed: an echo before"):
        from_cells({"tr_ms": "8", "te_ms": "90"}, "t.csv, line 2")
    write_json(tmp_path / "scan.json", RepetitionTime=0.008, EchoTime=0.09, FlipAngle=9)
    with caplog.at_level(logging.WARNING):
        assert from_files(tmp_path / "scan.nii.gz") == Acquisition(flip_angle_deg=9)
    assert "the echo is after the repetition" in caplog.text


def test_a_damaged_sidecar_is_unknown_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "scan.json").write_text("{")
    assert from_files(tmp_path / "scan.nii.gz") == Acquisition()
    assert "scan.json is damaged" in caplog.text


def test_dicom_tags_give_ms(tmp_path: Path) -> None:
    volume = np.arange(60.0).reshape(3, 4, 5)
    write_series(
        tmp_path, volume, RepetitionTime=500, EchoTime=12.5, FlipAngle=90, BodyPartExamined="BRAIN"
    )
    expected = Acquisition(tr_ms=500, te_ms=12.5, flip_angle_deg=90, region="brain")
    assert from_files(tmp_path) == expected


def test_damaged_dicom_files_are_unknown(tmp_path: Path) -> None:
    write_series(tmp_path, np.arange(60.0).reshape(3, 4, 5), RepetitionTime=500)
    for file in sorted(tmp_path.iterdir()):
        file.write_bytes(file.read_bytes()[:645])
    assert from_files(tmp_path).te_ms is None


def test_a_store_holds_what_table_and_sidecar_say_and_later_changes(tmp_path: Path) -> None:
    image = write_volume_file(tmp_path / "a.nii.gz")
    table = tmp_path / "data.csv"
    columns = "subject_id,dataset,sequence,path,te_ms,region"
    table.write_text(f"{columns}\n1,d,T1,a.nii.gz,4,\n")
    write_json(tmp_path / "a.json", RepetitionTime=2, EchoTime=0.009)
    store = tmp_path / "store"

    def prepared() -> Acquisition:
        (outcome,) = prepare(table, PrepareOptions(store, SMALL), processes=1)
        assert outcome.record is not None
        assert SliceStore(store).records == [outcome.record]
        return outcome.record.acquisition

    assert image.is_file()
    assert prepared() == Acquisition(tr_ms=2000, te_ms=4)
    table.write_text(f"{columns}\n1,d,T1,a.nii.gz,5,Brain\n")
    assert prepared() == Acquisition(tr_ms=2000, te_ms=5, region="brain")
