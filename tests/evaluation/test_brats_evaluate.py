"""The official tool is called, and its results are checked."""

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_fm.data.label_images import Labels
from nnunet_fm.evaluation.brats_evaluate import OfficialScore, official_scores, write_pair
from nnunet_fm.evaluation.label_folders import LabelPair, find_pairs
from nnunet_fm.evaluation.labels import LabelScheme, Region

FAKE_TOOL = """#!{python}
import json, pathlib, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
files = sorted(pathlib.Path(words["--ref_path"]).iterdir())
assert all((pathlib.Path(words["--pred_path"]) / f.name).is_file() for f in files)
lesions = {{"n_ref_instances": 2, "tp": 1, "fn": 1}}
whole = {{**lesions, "sq_dsc": 0.9, "global_bin_hd95": float("inf")}}
metrics = [{{"subject_name": f.name, "wt": whole}} for f in files]
if {broken}:
    metrics[0] = {{"subject_name": files[0].name, "error": "shapes"}}
pathlib.Path(words["--summary_json"]).write_text(json.dumps({{"metrics": metrics, "missings": []}}))
"""


@pytest.fixture
def one_mm(tmp_path: Path) -> tuple[Path, Path]:
    for folder in ("p", "t"):
        for case in ("A", "B 2"):
            image = sitk.GetImageFromArray(np.ones((4, 5, 6), np.uint8))
            (tmp_path / folder).mkdir(exist_ok=True)
            sitk.WriteImage(image, str(tmp_path / folder / f"{case}.nii.gz"))
    return tmp_path / "p", tmp_path / "t"


def tool(folder: Path, broken: bool = False) -> str:
    path = folder / "brats-evaluate"
    path.write_text(FAKE_TOOL.format(python=sys.executable, broken=broken))
    path.chmod(0o755)
    return str(path)


LABELS = LabelScheme((Region("WT", (1, 2, 3)),))


def scores_of(folders: tuple[Path, Path], challenge: str, tool: str) -> list[OfficialScore]:
    return official_scores(find_pairs(*folders, ".nii.gz"), LABELS, challenge, tool)


def test_the_official_tool_is_called_and_checked(one_mm: tuple[Path, Path], tmp_path: Path) -> None:
    scores = scores_of(one_mm, "gli", tool(tmp_path))
    assert [(s.case, s.region, s.tp, s.fp, s.fn, s.sq_dsc) for s in scores] == [
        ("A", "wt", 1, 0, 1, 0.9),
        ("B 2", "wt", 1, 0, 1, 0.9),
    ]
    assert np.isnan(scores[0].sq_hd95)
    assert np.isinf(scores[0].global_bin_hd95)
    with pytest.raises(RuntimeError, match="omitted A"):
        scores_of(one_mm, "gli", tool(tmp_path, broken=True))


def written(pair: LabelPair, folder: Path) -> Labels:
    """Return the prediction that the tool gets."""
    for kind in ("truth", "predictions"):
        (folder / kind).mkdir()
    write_pair(pair, LABELS, folder, "1.nii.gz")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "predictions" / "1.nii.gz")))


def test_the_official_tool_sees_predictions_as_their_truth_is_stored(
    one_mm: tuple[Path, Path], tmp_path: Path
) -> None:
    half = np.zeros((4, 5, 6), np.uint8)
    half[1:, 2:, 3:] = 2
    image = sitk.GetImageFromArray(half)
    flipped = sitk.PermuteAxes(sitk.Flip(image, (True, False, True), False), (2, 0, 1))
    sitk.WriteImage(image, str(one_mm[1] / "A.nii.gz"))
    sitk.WriteImage(flipped, str(one_mm[0] / "A.nii.gz"))
    pair = LabelPair("A", one_mm[0] / "A.nii.gz", one_mm[1] / "A.nii.gz")
    assert np.array_equal(written(pair, tmp_path), half)


def test_the_official_tool_gets_whole_numbers(one_mm: tuple[Path, Path], tmp_path: Path) -> None:
    nearly = sitk.GetImageFromArray(np.full((4, 5, 6), 1.9996, np.float32))
    sitk.WriteImage(nearly, str(one_mm[0] / "A.nii.gz"))
    pair = LabelPair("A", one_mm[0] / "A.nii.gz", one_mm[1] / "A.nii.gz")
    predicted = written(pair, tmp_path)
    assert predicted.dtype.kind in "iu"
    assert (predicted == 2).all()


def test_what_the_official_tool_would_get_wrong_is_refused(
    one_mm: tuple[Path, Path], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="Did you mean gli"):
        scores_of(one_mm, "glii", tool(tmp_path))
    with pytest.raises(FileNotFoundError, match="pip install BraTS-evaluation"):
        scores_of(one_mm, "gli", str(tmp_path / "nothing"))
    (one_mm[0] / "A.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match="no prediction of A"):
        scores_of(one_mm, "gli", tool(tmp_path))
    with pytest.raises(ValueError, match="1 mm isotropic"):
        scores_of((folders[1], folders[1]), "gli", tool(tmp_path))


def test_one_truncated_prediction_does_not_end_the_official_scoring(
    one_mm: tuple[Path, Path], tmp_path: Path
) -> None:
    file = one_mm[0] / "A.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    problems: dict[str, str] = {}
    pairs = find_pairs(*one_mm, ".nii.gz")
    scores = official_scores(pairs, LABELS, "gli", tool(tmp_path), problems=problems)
    assert [score.case for score in scores] == ["B 2"]
    assert "A.nii.gz" in problems["A"]
