"""What version 0.1 wrote is read: plans, checkpoints, a store, a run, a cache, a sweep.

Results are compared with tolerances, as other processors round differently. Runs of heads:
`heads/test_saved_runs.py`.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from helpers.version_0_1 import MADE_IN, drawn_on_this_processor, relocate, unpack
from nnunet_fm.encoders import CheckpointError, load_encoder, tensors_sha256
from nnunet_fm.internal.folders import EXT_TRAINER, folder
from nnunet_fm.nnunet.encoder_in_plans import encoder_source
from nnunet_fm.nnunet.run_identity import plan_differences
from nnunet_fm_pretrain.data.slice_store import SliceStore

CASE = "BraTS-T-00006.nii.gz"
PLANS = [  # of one network each
    "FM_braindino",
    "FM_fixed_light",
    "FM_mixing",
    "FM_synth_vitt16",
    "FM_dinov3_test16_random3",
    "FM_dinov3_nano8_random",
    "FM_dinov2_test14_random",
    "FM_volume_test16_random",
    "FM_volume_testbmmae_random",
    "FM_volume_testprimus_random",
    "FM_volume_testpyramid_random",
    "FM_volume_testswin_random",
    "FM_volume_testuniformer_random",
]
Command = Callable[..., str]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the files, and let their absolute paths name the new place."""
    base = unpack(tmp_path_factory.mktemp("old"))
    for part, place in (("plans", base), ("run", base), ("sweep", base / "sweep")):
        for file in (base / part).rglob("*.json"):
            file.write_text(file.read_text().replace(MADE_IN, str(place)))
    for file in (base / "run").rglob("*.pth"):
        content = torch.load(file, map_location="cpu", weights_only=False)
        content["init_args"] = relocate(content["init_args"], str(base))
        torch.save(content, file)
    return base


@pytest.fixture(scope="module")
def expected(old: Path) -> dict[str, Any]:
    return json.loads((old / "expected.json").read_text())


@pytest.fixture(scope="module")
def command(old: Path) -> Command:
    """Run `nnunet-fm` on the old files, in the folder of the sweep."""
    folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    environment = {name: str(old / "sweep" / name) for name in folders}
    environment |= {"PYTHONWARNINGS": "ignore", EXT_TRAINER: str(folder("trainers"))}
    environment |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}

    def run(*words: object, cwd: Path = old, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "nnunet_fm.cli", *map(str, words)],
            env=os.environ | environment,
            cwd=cwd,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == status, done.stdout[-4000:]
        return done.stdout

    return run


@pytest.mark.parametrize("name", PLANS)
def test_plans_build_their_network_and_name_their_weights(
    name: str, old: Path, expected: dict[str, Any]
) -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plans = json.loads((old / "plans" / f"{name}.json").read_text())
    configurations = expected["plans"][name]["configurations"]
    assert configurations
    for configuration, content in configurations.items():
        resolved = PlansManager(plans).get_configuration(configuration)
        network = get_network_from_plans(
            resolved.network_arch_class_name,
            resolved.network_arch_init_kwargs,
            resolved.network_arch_init_kwargs_req_import,
            4,
            3,
            allow_init=True,
            deep_supervision=False,
        )
        source = encoder_source(plans, configuration)
        assert source.sha256 == content["source"]["sha256"]
        if not drawn_on_this_processor(source):
            with pytest.raises(CheckpointError, match="Use the processor on which the plans"):
                network.load_encoder()
            continue
        network.load_encoder()
        assert tensors_sha256(network.encoder.state_dict()) == source.sha256
        assert not plan_differences(plans, plans, configuration)


@pytest.mark.parametrize(
    ("model", "checkpoint"),
    [
        ("frozen_2d", "final"),
        ("frozen_2d", "best"),  # slim: without the encoder
        ("mixing_25d", "best"),
        ("volume_3d", "best"),
        ("exported", "final"),
    ],
)
def test_checkpoints_predict_what_they_predicted(
    model: str, checkpoint: str, old: Path, command: Command, tmp_path: Path
) -> None:
    words = ["-f", 0, "-chk", f"checkpoint_{checkpoint}.pth", "-device", "cpu", "-npp", 1]
    words += ["-nps", 1, "--disable_progress_bar", "--precision", "float32"]
    command("predict", "-m", f"run/{model}", "-i", "run/case", "-o", tmp_path, *words)
    before = old / "run" / model / f"predicted_{checkpoint}" / CASE
    arrays = [sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (before, tmp_path / CASE)]
    assert (arrays[0] == arrays[1]).mean() > 0.999
    assert len(np.unique(arrays[0])) > 1


def test_a_store_is_read(old: Path, expected: dict[str, Any]) -> None:
    store = SliceStore(old / "store")
    assert store.identity() == expected["store"]["identity"]
    assert sorted(store.subjects()) == expected["store"]["subjects"]
    assert list(store.check()) == []


def test_a_pretraining_run_is_resumed_and_exported(
    old: Path, command: Command, expected: dict[str, Any]
) -> None:
    run = old / "pretrain_run"
    words = ["pretrain_run/pretrain.yaml", "--store", "store", "--accelerator", "cpu"]
    command("pretrain", "run", *words, "-o", run / "interrupted")
    for name in ("interrupted", "finished"):
        command("pretrain", "export", run / name, "-o", old / f"{name}.safetensors")
    finished, report = load_encoder(old / "finished.safetensors")
    assert report.card == "dinov3_test16.trained"
    known = expected["encoders"]["pretrain_run/encoder.safetensors"]
    assert report.sha256 == known["tensors_sha256"]
    resumed, _ = load_encoder(old / "interrupted.safetensors")
    for name, tensor in finished.state_dict().items():
        other = resumed.state_dict()[name]
        assert torch.allclose(tensor, other, atol=1e-4), name
    half, _ = load_encoder(run / "encoder_half.pth")
    x = torch.ones(1, 3, 32, 32)
    assert torch.allclose(half.embed(x), finished.embed(x), atol=0.01)


def test_a_cache_is_complete(old: Path, command: Command) -> None:
    words = ["cache/volumes/subjects.csv", "--cache", "cache/features", "--shape", 8, 32, 32]
    words += ["-np", 1]
    trained = ["--encoder", "pretrain_run/encoder.safetensors", "--layers", "1,3"]
    random = ["--encoder", "dinov3_test16", "--seed", 3, "--layers", 3, "--precision", "float32"]
    perturbed = ["--perturb", "gamma=2", "--modalities", "T1"]
    assert "18 already cached, 0 failed" in command("features", "extract", *words, *trained)
    printed = command("features", "extract", *words, *random, "--modalities", "T1")
    assert "16 volumes extracted, 0 already cached, 0 failed" in printed  # another rounding
    printed = command("features", "extract", *words, *trained, *perturbed)
    assert "16 already cached, 0 failed" in printed
    assert "66 volumes, 0 damaged" in command("features", "verify", "--cache", "cache/features")


def test_a_sweep_is_continued(old: Path, command: Command) -> None:
    """Its encoder has random weights: on another kind of processor the sweep is refused."""
    plans = json.loads(next((old / "sweep").rglob("SW_tiny_r050_s3.json")).read_text())
    words = ("sweep", "small.yaml", "-o", "sweep", "--dry-run")
    if drawn_on_this_processor(encoder_source(plans, "2d_fm48")):
        assert "2 finished" in command(*words, cwd=old / "sweep")
    else:
        printed = command(*words, cwd=old / "sweep", status=2)
        assert "exist already, with another encoder of 2d_fm48" in printed
        assert "Give these another name (-o SW_tiny_r050_s3_2; in a sweep" in printed


def test_a_sweep_is_reported(old: Path, command: Command, tmp_path: Path) -> None:
    assert "2 finished" in command("sweep", "status", "sweep/sweep")
    command("report", "sweep/sweep", "-o", tmp_path, "-np", 1)
    old_tables = old / "sweep" / "report" / "tables"
    assert list(old_tables.glob("*.csv"))
    for file in old_tables.glob("*.csv"):
        before = rows(file)
        after = rows(tmp_path / "tables" / file.name)
        kept = [number for number, name in enumerate(after[0]) if name != "training_seed"]
        after = [[row[number] for number in kept] for row in after]
        if file.name == "cost.csv":  # the checkpoints' sizes: the archive holds placeholders
            before, after = [[row[:-1] for row in table] for table in (before, after)]
        assert after == before, file.name


def rows(file: Path) -> list[list[str]]:
    """Read the cells, but for the limits, which few cases have by another method since 0.1.

    The space that nnU-Net's log ended lines with in version 0.1 is dropped.
    """
    header, *table = csv.reader(file.read_text().splitlines())
    kept = [n for n, name in enumerate(header) if not name.endswith(("low", "high"))]
    return [[row[n].strip() for n in kept] for row in (header, *table)]
