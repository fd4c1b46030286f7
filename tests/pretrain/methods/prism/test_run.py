"""Runs of PRISM: resumed, by two processes, exported, and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.pretraining import (
    check_resumes_bit_equal,
    small_prism_recipe,
    trained_by_one_and_two,
    trained_on,
)
from helpers.prism_ranks import gradients, gradients_of_ranks
from nnunet_fm.encoders import load_encoder
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.methods.prism.crops import CropBatches
from nnunet_fm_pretrain.methods.recipes import parse_recipe, read_recipe
from nnunet_fm_pretrain.methods.registry import get_method
from nnunet_fm_pretrain.runs import export, pretrain

REGIONS = {"regions": ["brain", "neck"]}
PLAIN = {"contrast_weight": 0, "adversarial_weight": 0}


def recipe(**parts: object) -> Any:
    return parse_recipe(small_prism_recipe(**parts), "test")


def test_a_resumed_run_is_bit_equal(acquired: VolumeStore, tmp_path: Path) -> None:
    made = recipe(optimiser={"steps": 4}, objective=REGIONS)
    check_resumes_bit_equal(made, acquired.folder, tmp_path)


def test_two_processes_have_the_gradients_of_one(acquired: VolumeStore, tmp_path: Path) -> None:
    """Ranks swap crops, and have different numbers of known flip angles and regions."""
    batch = CropBatches(acquired, recipe(objective=REGIONS), 8, 3)[0]
    for known in (~batch.acquisition[:, 2].isnan(), batch.regions >= 0):
        assert 0 < known.sum() < 4
        assert known[:2].sum() != known[2:].sum()
    two = gradients_of_ranks(acquired.folder, tmp_path)
    one = gradients(acquired.folder, 0, 1)
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-6, atol=1e-9, msg=key)


def test_two_processes_train(acquired: VolumeStore, tmp_path: Path) -> None:
    """AdamW's first steps have the size of the rate, also where a gradient is mere rounding."""
    content = small_prism_recipe(optimiser={"steps": 2}, objective={**REGIONS, **PLAIN})
    one, two = trained_by_one_and_two(content, acquired.folder, tmp_path)
    apart = torch.cat([(one[key] - two[key]).abs().flatten() > 1e-4 for key in one])
    assert apart.float().mean() < 0.01


def test_four_crops_are_learned_by_heart(acquired: VolumeStore) -> None:
    torch.manual_seed(0)
    made: Any = get_method("prism").build(recipe(objective=PLAIN))
    batch = made.batches(acquired, 0, 1)[0]
    losses = trained_on(made, batch, 0, 2e-3, 40)
    assert losses.parts["reconstruction"] < 0.9 * losses.monitors["predict_zero"]
    for name in ("tr_ms", "te_ms"):
        assert losses.parts[name] < 0.3 * losses.monitors[f"{name}_mean"], name


def test_the_export_has_the_branches(acquired: VolumeStore, tmp_path: Path) -> None:
    made = recipe(optimiser={"steps": 3})
    pretrain(made, acquired.folder, tmp_path / "run", accelerator="cpu")
    file = tmp_path / "encoder.safetensors"
    card = export(tmp_path / "run", file)
    assert card["card"] == "prism_test12.trained"
    objective: Any = get_method("prism").build(made).eval()
    objective.load_state_dict(torch.load(checkpoints.latest(tmp_path / "run"))["objective"])
    x = torch.randn(2, 1, 32, 64, 32)
    with torch.no_grad():
        divided = objective.divide(x)
    for pool, map_ in (("anatomy", divided.anatomy), ("sequence", divided.sequence)):
        encoder, report = load_encoder(file, pool=pool)
        carried = {"branches": True, "crop_size": 32, "spacing": [1.0, 1.0, 1.0]}
        assert report.options == {**carried, "pool": pool}
        torch.testing.assert_close(encoder.eval().embed(x), map_.mean((2, 3, 4)))
    both = load_encoder(file, pool="both")[0].eval().embed(x)
    joined = torch.cat([divided.anatomy, divided.sequence], 1).mean((2, 3, 4))
    torch.testing.assert_close(both, joined)


def test_a_warm_start_keeps_transformer_and_branches(acquired: VolumeStore, tmp_path: Path) -> None:
    first = recipe(optimiser={"steps": 2, "warmup_steps": 1})
    pretrain(first, acquired.folder, tmp_path / "run", accelerator="cpu")
    export(tmp_path / "run", tmp_path / "first.safetensors")
    warm = {"init": str(tmp_path / "first.safetensors")}
    second: Any = get_method("prism").build(recipe(encoder=warm, seed=1))
    before = load_encoder(tmp_path / "first.safetensors")[0]
    second.load_encoder(before)
    for key, value in second.encoder.state_dict().items():
        assert torch.equal(value, before.state_dict()[key]), key


def test_changed_acquisitions_do_not_continue_a_run_but_start_another(
    acquired: VolumeStore, tmp_path: Path
) -> None:
    """Exchanged TRs and regions leave mean, deviation and volumes as they are."""
    made = recipe(optimiser={"steps": 2, "warmup_steps": 1}, objective=PLAIN)
    first, changed = tmp_path / "run", tmp_path / "store"
    shutil.copytree(acquired.folder, changed)
    pretrain(made, changed, first, accelerator="cpu")
    manifest = changed / "manifest.jsonl"
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    one, other = records[0], records[-1]
    one["acquisition"], other["acquisition"] = other["acquisition"], one["acquisition"]
    manifest.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    with pytest.raises(ValueError, match="their checksums or their acquisition differ"):
        pretrain(made, changed, first, accelerator="cpu")
    records[0]["acquisition"]["tr_ms"] = 17.0
    manifest.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    pretrain(made, changed, tmp_path / "second", first, accelerator="cpu")


def test_bfloat16_leaves_every_weight_a_gradient(acquired: VolumeStore) -> None:
    """Casts that were made without gradients are not used again with them."""
    made: Any = get_method("prism").build(recipe(objective=REGIONS))
    batch = made.batches(acquired, 0, 1)[0]
    for phase in made.all_phases:
        made.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            losses = made(batch, 0, phase)
        losses.total.backward()
        assert losses.total.dtype == torch.float32
        for owner, module in made.trainable_modules(phase).items():
            for name, parameter in module.named_parameters():
                assert parameter.grad is not None, f"{phase} {owner} {name}"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"views": {"size": 48}}, "views.size 48; allowed: a multiple of 32"),
        ({"objective": {"regions": ["brain"]}}, r"regions is \[brain\]; allowed: two or more"),
        ({"objective": {"regions": ["a", "a"]}}, "two or more, each once"),
        ({"objective": {"adversarial_weight": 0}}, "without which the generator"),
        ({"objective": {"translation_start": 20}}, "translation_start 20 of 20 steps"),
        ({"optimiser": {"batch_size": 1}}, "contrast_weight and views.masking.swap, which need"),
        ({"encoder": {"architecture": "volta3d_test8"}}, "allowed: a prism_"),
        ({"views": {"masking": {"edges": [0.3, 0.1]}}}, "allowed: 0 < low <= high"),
    ],
)
def test_recipes_that_cannot_be(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**parts)


def test_a_run_checks_the_factors_of_every_phase(acquired: VolumeStore, tmp_path: Path) -> None:
    for where, named in (
        ({"optimiser": {"layer_decay": 0.9}}, "optimiser.layer_decay=0.9 has no effect on encoder"),
        (
            {"optimisers": {"generator": {"layer_decay": 0.9}}},
            "optimisers.generator.layer_decay=0.9 has no effect",
        ),
    ):
        with pytest.raises(ValueError, match=named):
            pretrain(recipe(**where), acquired.folder, tmp_path / "run", accelerator="cpu")
        assert not (tmp_path / "run").exists()


def test_stores_that_cannot_be(acquired: VolumeStore, unit_volumes: VolumeStore) -> None:
    def batches(store: VolumeStore, **objective: Any) -> None:
        get_method("prism").build(recipe(objective=objective)).batches(store, 0, 1)

    with pytest.raises(ValueError, match="intensities from 0 to 1 .*PRISM takes z-scores"):
        batches(unit_volumes)
    with pytest.raises(ValueError, match="is of the region knee .*allowed: brain, neck"):
        batches(acquired, regions=["knee", "brain"])


def test_what_doctor_reports(acquired: VolumeStore, scans: VolumeStore) -> None:
    made = recipe()
    known, regions, _ = get_method("prism").check(made, acquired)
    assert known.what == "12 volumes; known: tr_ms 12, te_ms 12, flip_angle_deg 3"
    assert "(brain 4, neck 4, unknown 4)" in regions.what
    _, nothing, _, small = get_method("prism").check(made, scans)
    assert "nothing can be learned from tr_ms, te_ms, flip_angle_deg" in nothing.what
    assert "11 volumes smaller than views.size=32" in small.what


def test_the_paper_s_numbers() -> None:
    made: Any = read_recipe("prism_swinb48")
    s = made.objective
    weights = (s.reconstruction_weight, s.metadata_weight, s.region_weight, s.adversarial_weight)
    assert (*weights, s.contrast_weight) == (1, 1, 1, 1, 0.5)
    assert (made.views.size, made.views.masking.share) == (96, 0.3)
    with torch.device("meta"):
        encoder: Any = get_method("prism").build(made).encoder
    assert round(sum(p.numel() for p in encoder.swin.parameters()) / 1e6, 1) == 18.6
