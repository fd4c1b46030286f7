"""The encoder of CONTRIBUTING.md and the decoder of docs/decoders.md, in another package."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONTRIBUTING = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
FAMILY = re.search(r"## Add an encoder\n.*?```python\n(.*?)```", CONTRIBUTING, re.DOTALL)[1]
DECODERS = (Path(__file__).parents[2] / "docs/decoders.md").read_text()
DECODER = re.search(r"## A decoder of your own\n.*?```python\n(.*?)```", DECODERS, re.DOTALL)[1]
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "acme-encoders"
version = "1.0"

[project.entry-points."nnunet_fm.encoders"]
acme = "acme_encoders.family"

[project.entry-points."nnunet_fm.decoders"]
acme = "acme_encoders.decoder"

[project.entry-points."nnunet_fm.heads"]
unrelated = "acme_encoders.nowhere"

[tool.hatch.build.targets.wheel]
packages = ["acme_encoders"]
"""
SAVE = """
import sys, torch

shapes = {"stem": (8, 3, 8, 8), "blocks.0": (8, 8, 1, 1), "blocks.1": (8, 8, 1, 1)}
state = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
state |= {f"{name}.bias": torch.randn(8) for name in shapes}
torch.save(state | {"head.weight": torch.ones(2)}, sys.argv[1])
"""
USE = """
import json, sys, torch
from nnunet_fm.encoders import EncoderSource, load_encoder
from nnunet_fm.network import FrozenEncoderNetwork

encoder, report = load_encoder(sys.argv[1])
source = EncoderSource.resolve(sys.argv[1])
network = FrozenEncoderNetwork(4, 2, decoder="acme_upsample", **source.to_plans())
network.load_encoder()
x = torch.ones(1, 3, 16, 24)
maps = encoder.features(x)
pairs = zip(network.encoder.features(x), maps, strict=True)
last, _ = load_encoder(sys.argv[1], taps=[1])
found = {
    "card": report.card,
    "dropped": report.dropped,
    "features equal": all(torch.equal(ours, theirs) for ours, theirs in pairs),
    "last tap": [list(m.shape) for m in last.features(x) if torch.equal(m, maps[1])],
    "logits": list(network(torch.ones(1, 4, 16, 24)).shape),
    "embedding is the mean": torch.allclose(encoder.embed(x), maps[-1].mean((2, 3))),
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed."""
    project = tmp_path_factory.mktemp("acme")
    package = project / "acme_encoders"
    package.mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text("")
    (package / "family.py").write_text(FAMILY)
    (package / "decoder.py").write_text(DECODER)
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(project)], check=True, capture_output=True)
    return target


def run(site: Path, *words: str) -> str:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_package_adds_an_encoder_and_a_decoder(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    run(site, "-c", SAVE, str(file))
    assert "acme_conv8.brains" in run(site, "-m", "nnunet_fm.cli", "encoders", "list")
    verified = run(site, "-m", "nnunet_fm.cli", "encoders", "verify", str(file))
    assert "acme_conv8.brains" in verified
    used = json.loads(run(site, "-c", USE, str(file)).splitlines()[-1])
    assert used == {
        "card": "acme_conv8.brains",
        "dropped": {"head.weight": "head of the pretraining"},
        "features equal": True,
        "last tap": [[1, 8, 2, 3]],
        "logits": [1, 2, 16, 24],
        "embedding is the mean": True,
    }


def test_a_package_that_cannot_be_imported_is_skipped(site: Path, tmp_path: Path) -> None:
    information = tmp_path / "broken-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[nnunet_fm.encoders]\nbroken = not_there\n")
    words = "import sys; sys.path.insert(0, sys.argv[1]); import logging; "
    words += "logging.basicConfig(stream=sys.stdout); from nnunet_fm.encoders import CARDS; "
    words += "print('synth_vitt16.v1' in CARDS)"
    printed = run(site, "-c", words, str(tmp_path))
    assert printed.splitlines()[-1] == "True"
    assert "skipped the plug-in not_there (nnunet_fm.encoders)" in printed
