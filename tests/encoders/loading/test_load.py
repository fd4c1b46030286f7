"""The strict loader: every published format goes in, everything else is refused with a reason."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from helpers.encoder_files import State, braindino, official, randomised
from nnunet_fm.encoders import CARDS, CheckpointError, Converted, build_encoder, load_encoder
from nnunet_fm.encoders.families.dinov3_keys import to_dinov3
from nnunet_fm.encoders.loading.identify import identify
from nnunet_fm.encoders.loading.load_report import describe, fingerprint


def meta(state: State) -> dict:
    """Meta's releases: flat, biases present and zero, masks NaN as after a plain construction."""
    extra = {}
    for i in range(4):
        extra[f"blocks.{i}.attn.qkv.bias"] = torch.zeros(96)
        extra[f"blocks.{i}.attn.qkv.bias_mask"] = torch.full((96,), float("nan"))
    return state | extra | {"mask_token": state["mask_token"]}


def transformers(state: State) -> State:
    names = {
        "patch_embed.proj": "patch_embeddings",
        "storage_tokens": "register_tokens",
        "cls_token": "cls_token",
    }
    out = {"embeddings.mask_token": state["mask_token"][None]}
    for key, value in state.items():
        for ours, theirs in names.items():
            if key.startswith(ours):
                out[f"embeddings.{key.replace(ours, theirs)}"] = value
        if key.startswith("norm."):
            out[key] = value
        if key.startswith("blocks."):
            key = key.replace("blocks.", "layer.").replace("ls1.gamma", "layer_scale1.lambda1")
            key = key.replace("ls2.gamma", "layer_scale2.lambda1").replace(
                "attn.proj", "attention.o_proj"
            )
            key = key.replace("mlp.fc1", "mlp.up_proj").replace("mlp.fc2", "mlp.down_proj")
            if "attn.qkv.weight" in key:
                for letter, part in zip("qkv", value.chunk(3), strict=True):
                    out[key.replace("attn.qkv", f"attention.{letter}_proj")] = part.contiguous()
            else:
                out[key] = value
    return out


FORMS = {
    "BrainDINO": braindino,
    "averaged": lambda s: {"teacher": {f"model_ema.backbone.{k}": v for k, v in s.items()}},
    "DDP": lambda s: {"state_dict": {f"module.backbone.{k}": v for k, v in s.items()}},
    "checkpointed": lambda s: {
        "model_ema": {
            k.replace("blocks.", "blocks._checkpoint_wrapped_module."): v for k, v in s.items()
        }
    },
    "Meta": meta,
    "transformers": transformers,
    "release network": lambda s: {
        "network_weights": {f"dino_encoder.{k}": v for k, v in s.items()}
    },
}  # fmt: skip


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_every_format_gives_the_same_encoder(form: str, ending: str, tmp_path: Path) -> None:
    encoder = randomised("dinov3_test16", norm_eps=1e-6, rope="bfloat16")
    content = FORMS[form](to_dinov3(encoder.state_dict()))
    path = tmp_path / f"wéights of mine{ending}"
    if ending == ".safetensors":
        flat = next((v for v in content.values() if isinstance(v, dict)), content)
        save_file({k: v.contiguous() for k, v in flat.items()}, path)
    else:
        torch.save(content, path)
    loaded, report = load_encoder(path, "dinov3_test16.trained")
    x = torch.randn(1, 3, 64, 48)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.features(x), encoder.features(x), strict=True)
    )
    assert not any(p.requires_grad for p in loaded.parameters())
    assert report.matched == len(encoder.state_dict())
    assert str(report.file_sha256) in describe(report)
    assert fingerprint(loaded) == fingerprint(encoder)


def test_identity_does_not_depend_on_the_file(tmp_path: Path) -> None:
    state = official()
    torch.save(braindino(state), tmp_path / "a.pth")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "b.safetensors")
    first, second = (load_encoder(tmp_path / n)[1] for n in ("a.pth", "b.safetensors"))
    assert first.sha256 == second.sha256
    assert first.file_sha256 != second.file_sha256
    state["norm.bias"] = state["norm.bias"] + 1e-3
    torch.save(state, tmp_path / "c.pth")
    assert load_encoder(tmp_path / "c.pth")[1].sha256 != first.sha256


def test_dinov2_registers_and_position_are_converted(tmp_path: Path) -> None:
    encoder = randomised("dinov2_test14")
    state = {k.removeprefix("vit."): v for k, v in encoder.state_dict().items()} | {
        "mask_token": torch.zeros(1, 32)
    }
    torch.save(state, tmp_path / "dinov2.pth")
    loaded, report = load_encoder(tmp_path / "dinov2.pth", "dinov2_test14")
    x = torch.randn(1, 3, 56, 56)
    assert torch.equal(loaded.embed(x), encoder.embed(x))
    assert report.dropped == {"mask_token": "used in pretraining only"}


def test_a_timm_vit_loads_by_its_timm_name(tmp_path: Path) -> None:
    encoder = randomised("timm/vit_tiny_patch16_224")
    state = {k.removeprefix("vit."): v for k, v in encoder.state_dict().items()}
    torch.save(
        state | {"head.weight": torch.ones(1000, 192), "head.bias": torch.ones(1000)},
        tmp_path / "t.pth",
    )
    loaded, report = load_encoder(tmp_path / "t.pth", "timm/vit_tiny_patch16_224")
    assert sorted(report.dropped) == ["vit.head.bias", "vit.head.weight"]
    x = torch.randn(1, 3, 224, 224)
    assert torch.equal(loaded.embed(x), encoder.embed(x))


def spoil(kind: str, state: State) -> object:
    """One kind of unusable content."""
    if kind == "wrong prefix":
        return {f"student.vision.{k}": v for k, v in state.items()}
    if kind == "missing":
        return {k: v for k, v in state.items() if k != "blocks.2.norm1.weight"}
    if kind == "extra":
        return state | {"blocks.0.attn.surprise": torch.ones(3)}
    if kind == "NaN":
        return state | {"norm.weight": torch.full((32,), float("nan"))}
    if kind == "whole numbers":
        return state | {"norm.weight": torch.ones(32, dtype=torch.int8)}
    if kind == "complex numbers":
        return state | {"norm.weight": torch.ones(32, dtype=torch.complex64)}
    if kind == "another architecture":
        return to_dinov3(randomised("dinov3_test16", embed_dim=64, num_heads=4).state_dict())
    if kind == "qkv bias":
        return state | {
            "blocks.1.attn.qkv.bias": torch.ones(96),
            "blocks.1.attn.qkv.bias_mask": key_masked(),
        }
    if kind == "key bias":
        return state | {"blocks.1.attn.qkv.bias": torch.ones(96)}
    assert kind == "no tensors"
    return {"epoch": 3, "arguments": {"lr": 0.1}}


def key_masked() -> Tensor:
    return torch.cat([torch.ones(32), torch.zeros(32), torch.ones(32)])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("wrong prefix", r"student\.vision.* no known format.*backbone"),
        ("missing", r"1 tensors missing: vit\.blocks\.2\.norm1\.weight"),
        ("extra", r"1 tensors unexpected: vit\.blocks\.0\.attn\.surprise"),
        ("NaN", r"1 not finite.*vit\.norm\.weight"),
        ("whole numbers", r"1 integer or complex.*vit\.norm\.weight \(int8\)"),
        ("complex numbers", r"1 integer or complex.*vit\.norm\.weight \(complex64\)"),
        ("another architecture", r"of another shape"),
        ("qkv bias", r"non-zero qkv bias.*qkv_bias=true"),
        ("key bias", r"key bias that is not masked"),
        ("no tensors", r"no tensors found"),
    ],
)
def test_unusable_content_is_refused(kind: str, message: str, tmp_path: Path) -> None:
    torch.save(spoil(kind, official()), tmp_path / "file.pth")
    with pytest.raises(ValueError, match=message):
        load_encoder(tmp_path / "file.pth", "dinov3_test16")


def test_a_masked_qkv_bias_loads_where_it_is_asked_for(tmp_path: Path) -> None:
    torch.save(spoil("qkv bias", official()) | {}, tmp_path / "file.pth")
    state = official()
    for i in range(4):
        state |= {
            f"blocks.{i}.attn.qkv.bias": torch.ones(96),
            f"blocks.{i}.attn.qkv.bias_mask": key_masked(),
        }
    torch.save(state, tmp_path / "file.pth")
    loaded, _ = load_encoder(tmp_path / "file.pth", "dinov3_test16", qkv_bias=True)
    assert float(loaded.vit.blocks[1].attn.q_bias.mean()) == 1


class Code:
    def __reduce__(self) -> tuple:
        return (print, ("this must never be printed",))


def test_pickled_code_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"teacher": Code()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Code()))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(CheckpointError):
            load_encoder(tmp_path / name)
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_truncated_files_are_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{ending}"
    if ending == ".pth":
        torch.save(official(), path)
    else:
        save_file({k: v.contiguous() for k, v in official().items()}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="download it again"):
        load_encoder(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_encoder(tmp_path / "gone.pth")


@pytest.mark.parametrize(
    ("name", "containers", "card"),
    [
        ("dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth", [], "dinov3_vitb16.lvd1689m"),
        ("dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth", [], "dinov3_vitl16.lvd1689m"),
        ("dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth", [], "dinov3_vitl16.sat493m"),
        ("braindino.pth", ["teacher"], "braindino_vitb16.mri6m"),
        ("meddinov3_vitb16.pth", [], "meddinov3_vitb16.ct3m"),
        ("my_dinov3_brain.pth", ["teacher"], "dinov3_vitb16.trained"),
        ("checkpoint.pth", ["teacher"], "dinov3_vitb16.trained"),
        ("dinov2_vits14_reg4_pretrain.pth", [], "dinov2_vits14_reg4.lvd142m"),
    ],
)
def test_the_card_is_found_from_the_file(name: str, containers: list[str], card: str) -> None:
    with torch.device("meta"):
        tensors = build_encoder(CARDS[card].architecture).state_dict()
    assert identify(Path(name), Converted(tensors), containers)[0].name == card


def test_numerics_are_never_guessed() -> None:
    with torch.device("meta"):
        tensors = build_encoder("dinov3_vitb16").state_dict()
    with pytest.raises(CheckpointError, match=r"share, with different numerics.*--card NAME"):
        identify(Path("model.pth"), Converted(tensors), [])


def test_tensors_besides_the_encoder_are_listed(tmp_path: Path) -> None:
    content = braindino(official()) | {"iteration": torch.tensor(3)}
    content["teacher"]["backbone.local_cls_norm.weight"] = torch.ones(32)
    torch.save(content, tmp_path / "file.pth")
    dropped = load_encoder(tmp_path / "file.pth")[1].dropped
    assert dropped["local_cls_norm.weight"] == "norm of local crops, used in pretraining only"
    assert dropped["dino_head.mlp.0.weight"] == "pretraining head"
    state = {f"vit.{k}": v for k, v in [("x", torch.ones(1))]} | {"dino_head.x": torch.ones(1)}
    torch.save(
        {**randomised("timm/vit_tiny_patch16_224").state_dict(), **state}, tmp_path / "t.pth"
    )
    with pytest.raises(
        CheckpointError, match=r"2 tensors unexpected: .*dino_head\.x"
    ):  # this card lists no heads
        load_encoder(tmp_path / "t.pth", "timm/vit_tiny_patch16_224")


def test_a_damaged_file_is_compared_with_its_own_kind(tmp_path: Path) -> None:
    torch.save(spoil("missing", official()), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"dinov3_test16.*missing"):
        load_encoder(tmp_path / "file.pth")
    torch.save({"patch_embed.proj.weight": torch.ones(5, 3, 16, 16)}, tmp_path / "strange.pth")
    with pytest.raises(CheckpointError, match="no known architecture"):
        load_encoder(tmp_path / "strange.pth")
