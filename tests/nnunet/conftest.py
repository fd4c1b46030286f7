"""Stock plans, a trained model and its predictions, and trainers in this process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2 import paths

from helpers.catalogue import catalogue
from helpers.nnunet import (
    CONFIGURATION,
    DATASET,
    PLANS,
    TRAINER,
    Run,
    predict_words,
    stock_words,
)
from nnunet_fm.nnunet.plan_options import PlanOptions
from nnunet_fm.nnunet.planning import write_plans


@pytest.fixture
def stock_plans(tmp_path: Path) -> Path:
    """Return the folder of a dataset with plans as nnU-Net writes them."""
    stock = {
        "data_identifier": "nnUNetPlans_2d",
        "batch_size": 40,
        "patch_size": [192, 160],
        "median_image_size_in_voxels": [240.0, 200.0],
        "spacing": [1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * 4,
        "use_mask_for_norm": [True] * 4,
        "architecture": {
            "network_class_name": "some.UNet",
            "arch_kwargs": {"strides": [[1, 1], [2, 2], [4, 4]]},
            "_kw_requires_import": [],
        },
    }
    deep = stock | {"patch_size": [64, 64, 64], "spacing": [1.0] * 3}
    plans = {
        "plans_name": "nnUNetPlans",
        "dataset_name": "Dataset008_X",
        "configurations": {"2d": stock, "3d_fullres": deep},
    }
    (tmp_path / "nnUNetPlans_2d").mkdir()
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(plans))
    return tmp_path


@pytest.fixture(scope="session")
def trained(planned: Path, run: Run, nnunet: dict[str, str]) -> Path:
    """Train and validate fold 0 with stock nnU-Net; return the model folder."""
    run("nnUNetv2_train", 7, CONFIGURATION, 0, "-tr", TRAINER, "-p", PLANS, "-device", "cpu")
    return Path(nnunet["nnUNet_results"]) / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"


@pytest.fixture(scope="session")
def images(nnunet: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the unlabelled case and one training case."""
    target = tmp_path_factory.mktemp("in put")
    raw = Path(nnunet["nnUNet_raw"]) / DATASET
    for source in [*raw.glob("imagesTs/*"), *raw.glob("imagesTr/*00000_000?*")]:
        shutil.copyfile(source, target / source.name)
    return target


@pytest.fixture(scope="session")
def stock_prediction(
    trained: Path, images: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a folder of predictions by `nnUNetv2_predict`."""
    out = tmp_path_factory.mktemp("stock")
    run("nnUNetv2_predict", *predict_words(images, out, *stock_words(), "--save_probabilities"))
    return out


@pytest.fixture
def in_process(
    planned: Path, nnunet: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Any]:
    """Return a function that makes a trainer of the catalogue in this process."""

    def make(name: str) -> Any:
        for key in ("nnUNet_preprocessed", "nnUNet_results"):
            monkeypatch.setenv(key, nnunet[key])
        monkeypatch.setenv("nnUNet_n_proc_DA", "0")
        assert paths.nnUNet_results.is_set()
        plans_name = "FM_none_r050" if name.startswith("Subset") else PLANS
        configuration = "2d" if name.startswith("Subset") else CONFIGURATION
        if "25D" in name:
            asked = {
                "encoder": "dinov3_test16",
                "fov": "native",
                "patch": (4, 64, 64),
                "batch_size": 2,
                "mix_slices": 3,
            }
            written = write_plans(planned, PlanOptions(**asked, output="FM_mixing_step"))
            plans_name, configuration = written.identifier, written.configuration
        plans = json.loads((planned / f"{plans_name}.json").read_text()) | {
            "continue_training": False
        }
        description = json.loads((planned / "dataset.json").read_text())
        return getattr(catalogue(), name)(plans, configuration, 4, description, torch.device("cpu"))

    return make
