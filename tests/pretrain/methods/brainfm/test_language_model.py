"""`pretrain embed-modalities`: a table made by a language model, here a very small one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel, BertTokenizerFast

from nnunet_fm.cli.main import main

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "t1", "t2", "weighted", "mri", "-"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(WORDS), intermediate_size=32, **sizes)).save_pretrained(
        folder
    )
    return folder


def test_a_vector_is_the_mean_over_the_tokens_of_the_text(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "text.safetensors"
    words = ["pretrain", "embed-modalities", "T1=T1-weighted MRI", "t2"]
    assert main([*words, "--model", str(model), "-o", str(file)]) == 0
    assert "2 vectors of 16 numbers" in capsys.readouterr().out
    table = load_file(file)
    assert set(table) == {"T1", "t2"}
    network = AutoModel.from_pretrained(model).eval()
    numbers = torch.tensor([[2, 5, 9, 7, 8, 3]])  # [CLS] t1 - weighted mri [SEP]
    expected = network(numbers).last_hidden_state[0].mean(0)
    torch.testing.assert_close(table["T1"], expected)
    with safe_open(file, "pt") as content:
        assert json.loads(content.metadata()["texts"]) == {"T1": "T1-weighted MRI", "t2": "t2"}


def test_a_model_without_some_of_its_weights_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    weights = load_file(copy / "model.safetensors")
    kept = {k: v for k, v in weights.items() if "encoder.layer.1" not in k}
    save_file(kept, copy / "model.safetensors", {"format": "pt"})
    words = ["pretrain", "embed-modalities", "T1", "--model", str(copy)]
    assert main([*words, "-o", str(tmp_path / "text.safetensors")]) == 2
    assert "lacks encoder.layer.1." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["T1=a", "T1=b"], "allowed: each once"),
        (["=a"], "allowed: each once, NAME=TEXT"),
        (["T1", "--model", "no/such/folder"], "cannot read the model 'no/such/folder'"),
    ],
)
def test_what_cannot_be_embedded(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "text.safetensors"
    assert main(["pretrain", "embed-modalities", *words, "-o", str(file)]) == 2
    assert message in capsys.readouterr().err
    assert not file.exists()
