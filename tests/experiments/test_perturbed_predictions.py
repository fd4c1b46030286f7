"""Perturbed images of a case on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_fm.data.perturbations import VERSION, Perturbation
from nnunet_fm.experiments.perturbed_predictions import (
    finished_perturbations,
    paper_perturbations,
    perturbed_folder,
    predict_perturbed,
    write_perturbed,
)
from nnunet_fm.experiments.runs import Run

ENDING = ".nii.gz"


def write(array: np.ndarray, path: Path) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((5.0, 6.0, 7.0))
    sitk.WriteImage(image, str(path))
    return path


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Two channels of a head in air; one voxel of the head is 0 in the first."""
    found = []
    for n in range(2):
        array = np.zeros((6, 12, 14), np.float32)
        array[1:5, 2:10, 3:12] = np.random.default_rng(n).random((4, 8, 9)) * 100 + 10
        found.append(write(array, tmp_path / f"c{n}{ENDING}"))
    array = read(found[0])
    array[2, 5, 5] = 0
    write(array, found[0])
    return found


def perturbed(
    images: list[Path], out: Path, change: Perturbation | None, brains: Path | None = None
) -> list[np.ndarray]:
    out.mkdir()
    write_perturbed("case", images, change, out, ENDING, brains)
    assert sorted(p.name for p in out.iterdir()) == [
        f"case_{n:04d}{ENDING}" for n in range(len(images))
    ]
    return [read(out / f"case_{n:04d}{ENDING}") for n in range(len(images))]


def test_nothing_is_exactly_nothing(images: list[Path], tmp_path: Path) -> None:
    for n, change in enumerate((None, Perturbation("gibbs", 0.0))):
        for file, array in zip(images, perturbed(images, tmp_path / str(n), change), strict=True):
            assert (array == read(file)).all()


@pytest.mark.parametrize(
    "change", [Perturbation("gamma", 2), Perturbation("gibbs", 0.3), Perturbation("bias", 0.3)]
)
def test_the_air_stays_and_the_grid_too(
    images: list[Path], tmp_path: Path, change: Perturbation
) -> None:
    clean = [read(f) for f in images]
    air = (clean[0] == 0) & (clean[1] == 0)
    for file, before, after in zip(
        images, clean, perturbed(images, tmp_path / "out", change), strict=True
    ):
        assert (after[air] == before[air]).all()
        assert (after[~air] != before[~air]).mean() > 0.9
        one, other = (
            sitk.ReadImage(str(file)),
            sitk.ReadImage(str(tmp_path / "out" / f"case_0000{ENDING}")),
        )
        assert (one.GetSpacing(), one.GetOrigin()) == (other.GetSpacing(), other.GetOrigin())


def test_all_channels_lie_in_one_bias_field(images: list[Path], tmp_path: Path) -> None:
    clean = [read(f) for f in images]
    inside = (clean[0] > 0) & (clean[1] > 0)
    changed = perturbed(images, tmp_path / "out", Perturbation("bias", 0.4))
    fields = [a[inside] / b[inside] for a, b in zip(changed, clean, strict=True)]
    np.testing.assert_allclose(*fields, rtol=1e-5)
    assert np.ptp(fields[0]) > 0.5


def test_given_masks_bound_the_change_and_must_be_there(images: list[Path], tmp_path: Path) -> None:
    brains = tmp_path / "brains"
    brains.mkdir()
    with pytest.raises(FileNotFoundError, match=r"--brain-masks needs a mask CASE\.nii\.gz"):
        perturbed(images, tmp_path / "a", Perturbation("gamma", 2), brains)
    mask = np.zeros((6, 12, 14), np.uint8)
    mask[2:4, 4:8, 4:8] = 1
    write(mask, brains / f"case{ENDING}")
    (_, after) = perturbed(images, tmp_path / "b", Perturbation("gamma", 2), brains)
    assert (after != read(images[1])).sum() <= mask.sum()
    assert (after != read(images[1])).sum() > 20
    turned = sitk.Flip(sitk.ReadImage(str(brains / f"case{ENDING}")), (True, True, False), False)
    sitk.WriteImage(turned, str(brains / f"case{ENDING}"))
    (_, again) = perturbed(images, tmp_path / "c", Perturbation("gamma", 2), brains)
    assert np.array_equal(again, after)
    write(mask[:-1], brains / f"case{ENDING}")
    with pytest.raises(ValueError, match="14 x 12 x 5 voxels against 14 x 12 x 6"):
        write_perturbed("case", images, Perturbation("gamma", 2), tmp_path / "b", ENDING, brains)


def test_finished_runs_are_recognised_by_their_folders(tmp_path: Path) -> None:
    run = Run("Dataset007_Small", "e", 1.0, 0, 0, "T", "P", "2d", tmp_path / "fold_0")
    assert finished_perturbations(run) == []
    for change in (None, Perturbation("gibbs", 0.2), Perturbation("gamma", 0.5)):
        perturbed_folder(run, change).mkdir(parents=True)
    (tmp_path / "fold_0" / "perturbed" / "bias_0.1.tmp").mkdir()
    assert finished_perturbations(run) == [Perturbation("gamma", 0.5), Perturbation("gibbs", 0.2)]
    assert len(paper_perturbations()) == 5 + 4 + 4


def test_predictions_of_other_masks_are_not_taken_for_these(
    images: list[Path], tmp_path: Path
) -> None:
    run = Run("Dataset007_Small", "e", 1.0, 0, 0, "T", "P", "2d", tmp_path / "fold_0")
    change = Perturbation("gamma", 0.5)
    done = perturbed_folder(run, change)
    done.mkdir(parents=True)
    made_of = {"cases": ["case"], "brain": "not 0", "version": VERSION}
    (done / "made_of.json").write_text(json.dumps(made_of))
    assert predict_perturbed(run, change, ["case"], tmp_path) == done
    with pytest.raises(
        ValueError, match=r"predicted with another brain \(not 0; now .*masks\); delete that folder"
    ):
        predict_perturbed(run, change, ["case"], tmp_path, brain_masks=tmp_path / "masks")
    with pytest.raises(ValueError, match="predicted with another cases"):
        predict_perturbed(run, change, ["case", "more"], tmp_path)


def test_a_full_disk_is_noticed_while_perturbed_images_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole = sitk.WriteImage

    def write_half(image: sitk.Image, name: str, **options: bool) -> None:
        write_whole(image, name, **options)
        Path(name).write_bytes(Path(name).read_bytes()[:-40])

    file = write(np.random.default_rng(0).random((4, 5, 6), np.float32), tmp_path / "a.nii.gz")
    monkeypatch.setattr(sitk, "WriteImage", write_half)
    with pytest.raises(OSError, match=r"a_0000\.nii\.gz was not written whole"):
        write_perturbed("a", [file], Perturbation.parse("gamma=2.0"), tmp_path, ENDING)
