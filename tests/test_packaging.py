"""What the wheel holds, and that it works away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    words = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(words, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_two_packages_with_trainers_plans_and_recipes(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "nnunet_fm/trainers/nnunet_fm_trainers.py" in names
    assert "nnunet_fm/plans/2d_fm256.json" in names
    assert "nnunet_fm/weights/synth_vitt16.v1.safetensors" in names
    assert "nnunet_fm/heads/tasks/brain_age.yaml" in names
    assert {
        f"nnunet_fm/experiments/report/{name}" for name in ("page.html", "style.css", "viewer.js")
    } <= set(names)
    assert "nnunet_fm/experiments/configs/brats2021.yaml" in names
    assert "nnunet_fm/py.typed" in names
    assert "nnunet_fm_pretrain/recipes/braindino/braindino_stage1.yaml" in names
    assert "nnunet_fm_pretrain/py.typed" in names
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {
        "nnunet_fm",
        "nnunet_fm_pretrain",
    }
    assert not any("__pycache__" in n or n.startswith("nnunetv2") for n in names)


def test_the_installed_wheel_is_found_by_nnunet(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "from nnunet_fm_pretrain.methods.recipes import shipped_recipes\n"
        "assert 'braindino_stage2' in shipped_recipes()\n"
        "import nnunet_fm, nnunet_fm.nnunet.frozen_configuration as p; nnunet_fm.activate()\n"
        "from nnunet_fm.encoders import load_encoder; load_encoder('synth_vitt16')\n"
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "print(find('FrozenDinoTrainer').recipe.epochs, nnunet_fm.__file__, len(p.presets()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    epochs, file, presets = done.stdout.splitlines()[-1].split()
    assert (epochs, int(presets)) == ("100", len(list((ROOT / "plans").glob("*.json"))))
    assert Path(file).is_relative_to(tmp_path)
