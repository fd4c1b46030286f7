"""Runs of BrainFM-MRI: resumed, by two processes, exported, and with a table of text."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helpers.pretraining import (
    check_resumes_bit_equal,
    small_brainfm_recipe,
    trained_by_one_and_two,
    trained_on,
)
from nnunet_fm.encoders import load_encoder
from nnunet_fm.encoders.modality_text import hashed
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.methods.recipes import parse_recipe, read_recipe
from nnunet_fm_pretrain.methods.registry import get_method
from nnunet_fm_pretrain.runs import export, pretrain


def recipe(**parts: object) -> Any:
    return parse_recipe(small_brainfm_recipe(**parts), "test")


def test_a_resumed_run_is_bit_equal(scans: VolumeStore, tmp_path: Path) -> None:
    check_resumes_bit_equal(recipe(optimiser={"steps": 5}), scans.folder, tmp_path)


def test_two_processes_train_as_one(scans: VolumeStore, tmp_path: Path) -> None:
    """Ranks have different numbers of scans, hidden voxels and tokens."""
    content = small_brainfm_recipe(optimiser={"steps": 3})
    one, two = trained_by_one_and_two(content, scans.folder, tmp_path)
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-4, msg=key)


def test_four_sessions_are_learned_by_heart(scans: VolumeStore) -> None:
    torch.manual_seed(0)
    made: Any = get_method("brainfm").build(recipe(sessions={"flip": 0, "scale": 0}))
    batch = made.batches(scans, 0, 1)[0]
    losses = trained_on(made, batch, 100, 3e-3, 150)
    assert losses.parts["reconstruction"] < 0.7 * losses.monitors["predict_zero"]


def test_the_export_keeps_the_text_of_its_names(scans: VolumeStore, tmp_path: Path) -> None:
    made = recipe(optimiser={"steps": 3})
    pretrain(made, scans.folder, tmp_path / "run", accelerator="cpu")
    file = tmp_path / "encoder.safetensors"
    card = export(tmp_path / "run", file)
    assert card["card"] == "brainfm_test8.trained"
    objective: Any = get_method("brainfm").build(made).eval()
    objective.load_state_dict(torch.load(checkpoints.latest(tmp_path / "run"))["objective"])
    encoder, report = load_encoder(file)
    assert report.options == {
        "names": ["T1", "T2", "FLAIR"],
        "text": "hash",
        "text_width": 16,
        "image_size": 32,
        "spacing": [1.0, 1.0, 1.0],
    }
    x = torch.randn(2, 3, 32, 32, 32)
    torch.testing.assert_close(encoder.eval().embed(x), objective.encoder.embed(x))
    fewer, _ = load_encoder(file, modalities=["FLAIR", "T1"])
    absent = x * torch.tensor([1, 0, 1]).view(3, 1, 1, 1)
    torch.testing.assert_close(fewer.eval().embed(x[:, [2, 0]]), encoder.embed(absent))


def test_text_of_a_table(scans: VolumeStore, tmp_path: Path) -> None:
    names = ("T1", "T2", "FLAIR", "PD")
    table = {n: torch.as_tensor(hashed(n, 12), dtype=torch.float32) + 3 for n in names}
    file = tmp_path / "text.safetensors"
    save_file(table, file)
    text = {"source": "table", "file": str(file), "width": 12}
    made = recipe(text=text, optimiser={"steps": 3})
    pretrain(made, scans.folder, tmp_path / "run", accelerator="cpu")
    file.unlink()  # the checkpoint has it
    export(tmp_path / "run", tmp_path / "encoder.safetensors")
    encoder: Any = load_encoder(tmp_path / "encoder.safetensors")[0]
    rows = encoder.text.table
    torch.testing.assert_close(rows.mean(0), torch.zeros(12), rtol=0, atol=1e-6)
    torch.testing.assert_close(rows.square().mean(), torch.ones(()))
    assert float((rows[0] - rows[1]) @ (table["T1"] - table["T2"])) > 0
    with pytest.raises(ValueError, match="unknown modality 'PD'.*no other names"):
        load_encoder(tmp_path / "encoder.safetensors", modalities=["PD"])


def test_learned_text_is_trained_also_that_of_other_names(
    scans: VolumeStore, tmp_path: Path
) -> None:
    made = recipe(text={"source": "learned", "unknown": 0.5}, optimiser={"steps": 3})
    start = get_method("brainfm").build(made).state_dict()["encoder.text.table"]
    check_resumes_bit_equal(made, scans.folder, tmp_path)
    run = next(path.parent.parent for path in tmp_path.rglob("step*") if path.is_file())
    trained = torch.load(checkpoints.latest(run))["objective"]["encoder.text.table"]
    assert trained.shape == (4, 16)
    assert (trained != start).any(1).all()
    export(run, tmp_path / "encoder.safetensors")
    x = torch.randn(1, 2, 16, 16, 16)
    options = [["T1", "PD"], ["T1", "ADC"], ["T2", "ADC"]]
    first, same, other = (
        load_encoder(tmp_path / "encoder.safetensors", modalities=names)[0].eval().embed(x)
        for names in options
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"text": {"source": "table"}}, "allowed: source=table with a file"),
        ({"text": {"file": "x.safetensors"}}, "or another source without one"),
        ({"encoder": {"architecture": "volta3d_test8"}}, "allowed: a brainfm_"),
        ({"objective": {"decoder_heads": 5}}, "for tokens of 24 numbers; allowed: a divisor"),
        ({"text": {"unknown": 0.5}}, "text.unknown=0.5 with text.source=hash"),
    ],
)
def test_recipes_that_cannot_be(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_method("brainfm").build(recipe(**parts))


def test_tables_that_cannot_be(scans: VolumeStore, tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    names = ("T1", "T2", "FLAIR")
    odd = torch.ones(4)
    odd[2] = torch.nan
    for tensors, message in (
        ({"T1": torch.ones(4), "T2": torch.ones(4)}, "unknown modality 'FLAIR'"),
        ({n: torch.ones(4) for n in names}, "vectors are all alike"),
        (
            {n: torch.ones(k) for k, n in enumerate(names, 4)},
            "T2 in .* has the shape .5,.; allowed",
        ),
        (dict.fromkeys(names, odd), "T1 in .* has values that are not finite"),
    ):
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, file)
        with pytest.raises(ValueError, match=message):
            made = recipe(text={"source": "table", "file": str(file), "width": 4})
            get_method("brainfm").build(made).batches(scans, 0, 1)
    gone = recipe(text={"source": "table", "file": str(tmp_path / "gone.safetensors")})
    with pytest.raises(FileNotFoundError, match="does not exist"):
        get_method("brainfm").build(gone).batches(scans, 0, 1)


def test_a_warm_start_gives_each_name_its_own_text(scans: VolumeStore, tmp_path: Path) -> None:
    learned = {"source": "learned"}
    first = recipe(text=learned, optimiser={"steps": 2, "warmup_steps": 1})
    pretrain(first, scans.folder, tmp_path / "run", accelerator="cpu")
    export(tmp_path / "run", tmp_path / "first.safetensors")
    before: Any = load_encoder(tmp_path / "first.safetensors")[0]
    warm = {"architecture": "brainfm_test8", "init": str(tmp_path / "first.safetensors")}
    turned = {"names": ["FLAIR", "T1"], "size": 16}
    second: Any = get_method("brainfm").build(recipe(encoder=warm, text=learned, sessions=turned))
    second.load_encoder(before)
    rows = second.encoder.text.table
    torch.testing.assert_close(rows, before.text.table[[2, 0, 3]])
    assert second.encoder.vit.positions.shape == (1, 8, 24)
    hashing: Any = get_method("brainfm").build(recipe(encoder=warm, sessions=turned))
    with pytest.raises(ValueError, match="trained with text.source=learned of 16 .* has hash"):
        hashing.load_encoder(before)
    with pytest.raises(ValueError, match="was trained with sessions.names=.*this recipe has"):
        other = recipe(text=learned, sessions={"names": ["T2", "T1", "FLAIR"]})
        pretrain(other, scans.folder, tmp_path / "2", tmp_path / "run", accelerator="cpu")


def test_names_belong_to_the_weights(scans: VolumeStore, tmp_path: Path) -> None:
    pretrain(recipe(optimiser={"steps": 2}), scans.folder, tmp_path / "run", accelerator="cpu")
    file = tmp_path / "encoder.safetensors"
    export(tmp_path / "run", file)
    for options in ({"names": ["FLAIR", "T2", "T1"]}, {"text": "table"}):
        with pytest.raises(ValueError, match="its weights were trained with .*; omit the option"):
            load_encoder(file, **options)
    assert load_encoder(file, names=("T1", "T2", "FLAIR"))[0].in_channels == 3


def test_a_slice_store_is_refused(sessions: SliceStore) -> None:
    with pytest.raises(ValueError, match="allowed here: a store of volumes.*prepare DATA --vol"):
        get_method("brainfm").open_store(sessions.folder)


def test_the_paper_s_numbers() -> None:
    made: Any = read_recipe("brainfm_vitb16")
    s = made.objective
    assert (s.variance_weight, s.covariance_weight, s.mask_ratio) == (0.1, 0.003, 0.75)
    with torch.device("meta"):
        encoder = get_method("brainfm").build(made).encoder
    conditional = [p for k, p in encoder.named_parameters() if ".scale." in k or ".shift." in k]
    assert sum(p.numel() for p in conditional) == 2 * 2 * 12 * 768 * 768
