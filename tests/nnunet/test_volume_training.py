"""A frozen 3-D encoder inside stock nnU-Net: planned, trained, validated, predicted with."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.nnunet import DATASET, Run

PLANS, CONFIGURATION, TRAINER = "FM_volume_test16_random", "3d_fm32", "FrozenVolumeTrainerTest"


def test_volumes_are_planned_trained_and_predicted(
    dataset: Path, run: Run, nnunet: dict[str, str], tmp_path: Path
) -> None:
    plan = (
        "nnunet-fm",
        "plan",
        "-d",
        7,
        "-c",
        "3d_fullres",
        "--encoder",
        "volume_test16",
        "--preset",
        "3d_fm32",
    )
    said = run(*plan, "--batch-size", 2).stdout
    assert f"nnUNetv2_preprocess -d 7 -plans_name {PLANS} -c {CONFIGURATION}" in said
    run("nnUNetv2_preprocess", "-d", 7, "-plans_name", PLANS, "-c", CONFIGURATION, "-np", 1)
    run("nnUNetv2_train", 7, CONFIGURATION, 0, "-tr", TRAINER, "-p", PLANS, "-device", "cpu")
    fold = (
        Path(nnunet["nnUNet_results"]) / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}" / "fold_0"
    )
    assert "Mean Validation Dice" in "".join(p.read_text() for p in fold.glob("training_log*"))
    (case,) = (Path(nnunet["nnUNet_raw"]) / DATASET / "imagesTs").glob("*_0000.nii.gz")
    words = (
        "-d",
        7,
        "-c",
        CONFIGURATION,
        "-f",
        0,
        "-tr",
        TRAINER,
        "-p",
        PLANS,
        "-device",
        "cpu",
        "-npp",
        1,
        "-nps",
        1,
    )
    run("nnUNetv2_predict", *words, "-i", case.parent, "-o", tmp_path / "stock")
    run(
        "nnunet-fm",
        "predict",
        *words,
        "-i",
        case.parent,
        "-o",
        tmp_path / "ours",
        "--precision",
        "float32",
    )
    name = case.name.replace("_0000", "")
    stock, ours = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / d / name))) for d in ("stock", "ours")
    )
    assert stock.shape == (6, 48, 48)
    assert np.mean(stock == ours) > 0.999
