"""The README's example and its claims."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunet_fm.cli.main import build_parser
from nnunet_fm.encoders import load_encoder
from nnunet_fm.network.frozen import FrozenEncoderNetwork

BINARY = (".safetensors", ".gz", ".xz")
ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def example() -> str:
    return re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]


def test_the_own_encoder_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len([line for line in example().splitlines() if line.strip()]) <= 15
    (tmp_path / "my_encoders.py").write_text(example())
    monkeypatch.syspath_prepend(str(tmp_path))
    network = FrozenEncoderNetwork(4, 3, "my_encoders.MyEncoder")
    assert network(torch.randn(1, 4, 64, 64)).shape == (1, 3, 64, 64)
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in network.encoder.state_dict().items()}},
        tmp_path / "w.pth",
    )
    encoder, report = load_encoder(tmp_path / "w.pth", "my_encoders.MyEncoder")
    assert torch.equal(encoder.body.weight, network.encoder.body.weight)
    assert report.prefixes == ["module."]
    torch.save({"body.weight": network.encoder.body.weight.data}, tmp_path / "half.pth")
    with pytest.raises(ValueError, match="1 tensors missing: body.bias"):
        load_encoder(tmp_path / "half.pth", "my_encoders.MyEncoder")


def test_every_command_of_the_readme_exists() -> None:
    commands = set(re.findall(r"^nnunet-fm (\w+)", README, re.MULTILINE)) | set(
        re.findall(r"`nnunet-fm (\w+)", README)
    )
    known = build_parser()._subparsers._group_actions[0].choices
    assert commands <= set(known)
    assert len(commands) >= 7


@pytest.mark.parametrize("target", ["setup", "demo", "test", "lint", "types", "bench"])
def test_every_make_target_exists(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sys.version_info >= (3, 10)


def test_nothing_names_a_machine() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    for name in filter(None, tracked):
        if name != "LICENSE" and not name.endswith(BINARY) and (ROOT / name).is_file():
            assert not re.search(r"/(root|home)/\w", (ROOT / name).read_text()), name
