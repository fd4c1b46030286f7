"""Plans that were edited by hand: refused with the file and the key, before anything is planned."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.plans import plan
from nnunet_fm.internal.errors import InputError

NAMED = {
    "data_identifier": "nnUNetPlans_2d",
    "batch_size": 40,
    "patch_size": [64, 64],
    "spacing": [1.0, 1.0],
    "architecture": {"network_class_name": "some.UNet", "arch_kwargs": {}},
}


def write_plans(folder: Path, change: dict[str, Any], without: str = "") -> None:
    configuration = {key: value for key, value in {**NAMED, **change}.items() if key != without}
    plans = {"plans_name": "nnUNetPlans", "dataset_name": "Dataset008_X"}
    content = {**plans, "configurations": {"2d": configuration}}
    content.pop(without, None)
    (folder / "nnUNetPlans.json").write_text(json.dumps(content))


@pytest.mark.parametrize("without", [*list(NAMED)[:4], "dataset_name"])
def test_a_missing_key_is_named(without: str, tmp_path: Path) -> None:
    write_plans(tmp_path, {}, without)
    with pytest.raises(InputError, match=rf"nnUNetPlans\.json is incomplete for 2d: .*{without}"):
        plan(tmp_path, encoder="dinov3_test16")


@pytest.mark.parametrize("value", [None, "x", -1, [], {}, [-1, 2], ["a"], True, "../up"])
@pytest.mark.parametrize("key", ["data_identifier", "batch_size", "patch_size", "spacing"])
def test_a_value_of_another_kind_is_named(key: str, value: object, tmp_path: Path) -> None:
    if (key, value) == ("data_identifier", "x"):
        return
    write_plans(tmp_path, {key: value})
    with pytest.raises(InputError, match=rf"nnUNetPlans\.json: configuration 2d: {key} is"):
        plan(tmp_path, encoder="dinov3_test16")


@pytest.mark.parametrize("configurations", [None, [], {"2d": []}, {"2d": None}])
def test_configurations_of_another_kind_are_refused(configurations: Any, tmp_path: Path) -> None:
    content = {"plans_name": "nnUNetPlans", "configurations": configurations}
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"nnUNetPlans\.json.* (no configurations|no object)"):
        plan(tmp_path, encoder="dinov3_test16")


def test_a_configuration_that_inherits_from_itself_is_refused(tmp_path: Path) -> None:
    write_plans(tmp_path, {"inherits_from": "2d"})
    with pytest.raises(InputError, match=r"nnUNetPlans\.json is incomplete for 2d"):
        plan(tmp_path, encoder="dinov3_test16")
