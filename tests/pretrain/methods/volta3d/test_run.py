"""Runs of VolTA-3D: resuming, exporting, planning, and inputs that do not fit."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.pretraining import (
    check_resumes_bit_equal,
    small_volta3d_recipe,
    trained_by_one_and_two,
    write_volume_file,
)
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import build_encoder, load_encoder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.methods.recipes import parse_recipe, read_recipe
from nnunet_fm_pretrain.methods.registry import get_method
from nnunet_fm_pretrain.runs import export, pretrain


def recipe(**parts: object) -> Any:
    return parse_recipe(small_volta3d_recipe(**parts), "test")


def losses_of(run: Path) -> list[float]:
    """Losses and gradient norms of all lines of a log."""
    names = ("global", "patch", "reconstruction", "norm_encoder")
    with (run / "log.csv").open() as stream:
        return [float(row[name]) for row in csv.DictReader(stream) for name in names]


def test_a_resumed_run_is_bit_equal(unit_volumes: VolumeStore, tmp_path: Path) -> None:
    made = recipe(optimiser={"steps": 5}, run={"micro_batch": 2})
    check_resumes_bit_equal(made, unit_volumes.folder, tmp_path)


def test_micro_batches_train_as_a_whole_batch(unit_volumes: VolumeStore, tmp_path: Path) -> None:
    logs = []
    for size in (None, 1):
        made = recipe(optimiser={"steps": 4}, run={"micro_batch": size})
        run = tmp_path / str(size)
        pretrain(made, unit_volumes.folder, run, accelerator="cpu")
        logs.append(losses_of(run))
    assert logs[0] == pytest.approx(logs[1], rel=1e-3)
    assert len(logs[0]) == 8


def test_other_micro_batches_do_not_continue_a_run_with_koleo(
    unit_volumes: VolumeStore, tmp_path: Path
) -> None:
    koleo: dict[str, Any] = {"objective": {"koleo_weight": 0.1}, "optimiser": {"steps": 3}}
    pretrain(recipe(**koleo), unit_volumes.folder, tmp_path, accelerator="cpu")
    with pytest.raises(ValueError, match="begun with run.micro_batch=None, now 2: KoLeo"):
        other = recipe(**koleo, run={"micro_batch": 2})
        pretrain(other, unit_volumes.folder, tmp_path, accelerator="cpu")


def test_two_processes_train_as_one(unit_volumes: VolumeStore, tmp_path: Path) -> None:
    content = small_volta3d_recipe(optimiser={"steps": 3}, run={"micro_batch": 1})
    one, two = trained_by_one_and_two(content, unit_volumes.folder, tmp_path)
    for key in ("global_centre", "patch_centre"):
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-5)
    positions = "student.encoder.vit.patch_embedding.position_embeddings"
    torch.testing.assert_close(one[positions], two[positions], rtol=1e-3, atol=1e-4)


def test_the_export_is_the_teacher_with_its_summary(
    unit_volumes: VolumeStore, tmp_path: Path
) -> None:
    made = recipe(optimiser={"steps": 3})
    pretrain(made, unit_volumes.folder, tmp_path / "run", accelerator="cpu")
    file = tmp_path / "encoder.safetensors"
    card = export(tmp_path / "run", file)
    assert (card["card"], card["licence"]) == ("volta3d_test8.trained", "as its author says")
    objective = get_method("volta3d").build(made).eval()
    objective.load_state_dict(torch.load(checkpoints.latest(tmp_path / "run"))["objective"])
    x = torch.rand(2, 1, 16, 24, 16)
    tokens = objective.teacher.tokens(x).patches
    encoder, report = load_encoder(file)
    assert report.options == {
        "summariser": True,
        "image_size": 16,
        "spacing": [1.14, 1.14, 1.14],  # 20 mm times the third root of 0.75, in 16 voxels
    }
    assert encoder.input_spec.spacing == (1.14, 1.14, 1.14)
    torch.testing.assert_close(encoder.eval().embed(x), tokens.mean(1))
    summary, _ = load_encoder(file, pool="summary")
    torch.testing.assert_close(summary.eval().embed(x), objective.teacher.summariser(tokens))


def test_a_full_size_export_fits_monais_unetr() -> None:
    from monai.networks.nets import UNETR

    encoder = build_encoder("volta3d_vitb16", summariser=True)
    network = UNETR(1, 3, 96, feature_size=16, norm_name="instance", proj_type="conv")
    ours = {k: v for k, v in encoder.state_dict().items() if k.startswith("vit.")}
    theirs = {k: v.shape for k, v in network.state_dict().items() if k.startswith("vit.")}
    unused = {k for k in theirs if "cross_attn" in k}
    assert {k: v.shape for k, v in ours.items()} == {
        k: v for k, v in theirs.items() if k not in unused
    }
    assert sum(v.numel() for v in ours.values()) == pytest.approx(88.5e6, rel=0.01)


def test_z_scores_small_volumes_and_slices_are_refused(
    unit_volumes: VolumeStore, sessions: SliceStore, tmp_path: Path
) -> None:
    write_volume_file(tmp_path / "in/a/t1.nii.gz")
    words = ["pretrain", "prepare", str(tmp_path / "in"), "--volumes", "-np", "1", "-o"]
    assert main([*words, str(tmp_path / "scored")]) == 0
    objective = get_method("volta3d").build(recipe(optimiser={"batch_size": 1}))
    with pytest.raises(ValueError, match=r"holds z-scores \(in/a_T1\).*--volumes --zero-to-one"):
        objective.batches(VolumeStore(tmp_path / "scored"), 0, 1)
    assert main([*words, str(tmp_path / "unit"), "--zero-to-one"]) == 0
    small = get_method("volta3d").build(
        recipe(optimiser={"batch_size": 1}, views={"global_size": 24})
    )
    with pytest.raises(ValueError, match=r"global_size 24: in/a_T1 \(16 x 22 x 18\).*lower views"):
        small.batches(VolumeStore(tmp_path / "unit"), 0, 1)
    with pytest.raises(ValueError, match=r"is not a volume store .* --volumes -o"):
        get_method("volta3d").open_store(sessions.folder)
    with pytest.raises(ValueError, match="is not a slice store"):
        get_method("braindino").open_store(unit_volumes.folder)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"encoder": {"architecture": "dinov3_test16"}}, "allowed: a volta3d_"),
        ({"views": {"global_scale": [0.5, 1.5]}}, "global_scale ends at 1.5; allowed: at most 1"),
        ({"views": {"local_scale": [0.5, 0.2]}}, "local_scale"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"views": {"global_size": 20}}, "global_size 20 for patches of 8 voxels"),
        ({"views": {"local_size": 12}}, "local_size 12 for patches of 8 voxels"),
        ({"views": {"corruption": {"share": 0.05}}}, "share 0.05 of the 8 patches .* none or all"),
        ({"objective": {"koleo_weight": 0.1}, "run": {"micro_batch": 1}}, "two volumes at a time"),
        ({"objective": {"koleo_weight": 0.1}, "optimiser": {"batch_size": 1}}, "at a time on each"),
        ({"run": {"micro_batch": 3}}, "micro_batch 3 of 4 volumes per device; allowed: a divisor"),
        ({"optimiser": {"batch_size": 7}}, "the store holds 6 volumes, fewer than one batch of 7"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(
    parts: dict[str, Any], message: str, unit_volumes: VolumeStore
) -> None:
    objective = get_method("volta3d").build(recipe(**parts))
    with pytest.raises(ValueError, match=message):
        objective.batches(unit_volumes, 0, 1)


@pytest.mark.parametrize("name", ["volta3d_vitb16", "volta3d_tiny_cpu"])
def test_the_shipped_recipes_are_valid(name: str) -> None:
    made = read_recipe(name, [])
    assert made.objective.method == "volta3d"


def test_a_file_of_monais_autoencoder_is_a_start(unit_volumes: VolumeStore, tmp_path: Path) -> None:
    weights = build_encoder("volta3d_test8").state_dict()
    state = {name.removeprefix("vit."): value for name, value in weights.items()}
    state["conv3d_transpose.weight"] = torch.zeros(24, 16, 4, 4, 4)
    torch.save(state, tmp_path / "w.pth")
    parts: dict[str, Any] = {"optimiser": {"steps": 2, "peak_lr": 0.0, "final_lr": 0.0}}
    start = {"architecture": "volta3d_test8", "init": str(tmp_path / "w.pth")}
    made = recipe(**parts, encoder={**start, "card": "volta3d_test8.trained"})
    pretrain(made, unit_volumes.folder, tmp_path / "run", accelerator="cpu")
    trained = torch.load(checkpoints.latest(tmp_path / "run"))["objective"]
    for name, value in weights.items():
        torch.testing.assert_close(trained[f"teacher.encoder.{name}"], value)
    other = recipe(**parts, encoder={**start, "card": "volume_test16.x"})
    with pytest.raises(ValueError, match="volume_test16"):
        pretrain(other, unit_volumes.folder, tmp_path / "other", accelerator="cpu")
