from pathlib import Path

import pytest

from nnunet_fm.data.bids_visits import find_visits, match_participants


def make(root: Path, *names: str) -> Path:
    """Touch images `SUBJECT[/ses-S]/anat/NAME`, and return the path of their table."""
    for name in names:
        subject = name.split("_")[0]
        session = [part for part in name.split("_") if part.startswith("ses-")]
        path = root.joinpath(subject, *session, "anat", f"{name}.nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root / "participants.tsv"


@pytest.mark.parametrize(
    ("folders", "people", "matched"),
    [
        (["sub-01", "sub-02"], ["01", "02"], {"01": "01", "02": "02"}),
        (["sub-01", "sub-10"], ["1", "10"], {"1": "01", "10": "10"}),
        (["sub-A007"], ["a7"], {"a7": "A007"}),
        (["sub-01"], ["01", "02"], {"01": "01", "02": "02"}),  # 02 was never scanned
        (["sub-01", "sub-02"], ["01"], {"01": "01"}),  # a table of some subjects
    ],
)
def test_ids_are_matched_where_only_one_folder_fits(
    folders: list[str], people: list[str], matched: dict[str, str], tmp_path: Path
) -> None:
    table = make(tmp_path, *(f"{folder}_T1w" for folder in folders))
    assert match_participants(table, people) == matched


@pytest.mark.parametrize(
    ("folders", "people", "message"),
    [
        (["sub-01", "sub-1"], ["001"], "001 can be sub-01, sub-1; write the ids"),
        (["sub-01"], ["1", "001"], "001, 1 can be sub-01"),
        (["sub-01", "sub-02"], ["01", "x2"], "1 of 2 participants .*: x2; 1 folders .*: sub-02"),
        (["sub-a"], ["b"], "1 of 1 participants of .* have no folder: b"),
    ],
)
def test_subjects_that_would_be_lost_are_an_error(
    folders: list[str], people: list[str], message: str, tmp_path: Path
) -> None:
    table = make(tmp_path, *(f"{folder}_T1w" for folder in folders))
    with pytest.raises(ValueError, match=message):
        match_participants(table, people)


def test_several_candidates_need_a_preference(tmp_path: Path) -> None:
    names = ("sub-1_acq-a_T1w", "sub-1_acq-b_T1w", "sub-1_FLAIR", "sub-2_acq-b_T1w")
    table = make(tmp_path, *names)
    with pytest.raises(ValueError, match="1 visits .*acq-a_T1w.*acq-b_T1w.*--prefer acq=a"):
        find_visits(table, ["1", "2"])
    (first,), (second,) = find_visits(table, ["1", "2"], prefer=[("acq", "a")])
    assert {s: path.name for s, path in first.volumes.items()} == {
        "FLAIR": "sub-1_FLAIR.nii.gz",
        "T1": "sub-1_acq-a_T1w.nii.gz",
    }
    assert second.volumes["T1"].name == "sub-2_acq-b_T1w.nii.gz"
    assert len(find_visits(table, ["2"])) == 1  # nobody asked for sub-1
    assert list(find_visits(table, ["1"], ["FLAIR"])[0][0].volumes) == ["FLAIR"]


def test_one_image_in_two_files_is_no_choice_of_entities(tmp_path: Path) -> None:
    table = make(tmp_path, "sub-1_T1w")
    (tmp_path / "sub-1/anat/sub-1_T1w.nii").touch()
    with pytest.raises(ValueError, match=r"sub-1_T1w.nii, sub-1_T1w.nii.gz; give a table"):
        find_visits(table, ["1"])
