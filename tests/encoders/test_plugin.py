"""A family of another package: one file and an entry point, without a change to this repository."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FAMILY = '''
"""Acme's encoder of slices."""

from functools import partial

from torch import nn

from nnunet_fm.encoders import (
    Converted,
    Encoder,
    FeatureInfo,
    InputSpec,
    KeyFormat,
    WeightCard,
    register_architecture,
    register_cards,
    register_key_format,
)


class Acme(Encoder):
    """One convolution."""

    kind = "tokens"
    in_channels = 3

    def __init__(self, taps=None, width=8):
        super().__init__()
        self.body = nn.Conv2d(3, width, 8, stride=8)
        self.input_spec = InputSpec(spatial_dims=2, divisor=8, native_size=(64, 64))
        self.feature_info = [FeatureInfo(width, 8, "body")]

    def features(self, x):
        return [self.body(x)]


def convert(state):
    return Converted({key.replace("stem.", "body."): v for key, v in state.items()})


register_architecture("acme_conv8", partial(Acme, width=8))
register_key_format(KeyFormat("Acme", lambda state: "stem.weight" in state, convert))
register_cards(
    WeightCard("acme_conv8.brains", "acme_conv8", "MIT", "https://example.org/acme.pth")
)
'''
DECODER = '''
"""Acme's decoder."""

from torch import nn

from nnunet_fm.network.decoders import Decoder, register_decoder


class Upsample(Decoder):
    """A 1x1 head on the last map, repeated."""

    spatial_dims = 2
    kind = "tokens"

    def __init__(self, feature_info, num_classes, stages, input_channels):
        super().__init__()
        self.head = nn.Conv2d(feature_info[-1].channels, num_classes, 1)
        self.scale = 2**stages

    def forward(self, features, image):
        return nn.functional.interpolate(self.head(features[-1]), scale_factor=self.scale)


register_decoder("acme_upsample", Upsample)
'''
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
USE = """
import json, sys, torch
from nnunet_fm.encoders import EncoderSource, load_encoder
from nnunet_fm.network import FrozenEncoderNetwork

encoder, report = load_encoder(sys.argv[1])
source = EncoderSource.resolve(sys.argv[1])
network = FrozenEncoderNetwork(4, 2, decoder="acme_upsample", **source.to_plans())
network.load_encoder()
x = torch.ones(1, 3, 16, 24)
same = torch.equal(network.encoder.features(x)[0], encoder.features(x)[0])
logits = list(network(torch.ones(1, 4, 16, 24)).shape)
embedded = torch.allclose(encoder.embed(x), encoder.features(x)[0].mean((2, 3)))
print(json.dumps([report.card, same, logits, embedded]))
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
    save = "import torch, sys; torch.save({'stem.weight': torch.randn(8, 3, 8, 8), "
    run(site, "-c", save + "'stem.bias': torch.randn(8)}, sys.argv[1])", str(file))
    assert "acme_conv8.brains" in run(site, "-m", "nnunet_fm.cli", "encoders", "list")
    verified = run(site, "-m", "nnunet_fm.cli", "encoders", "verify", str(file))
    assert "acme_conv8.brains" in verified
    used = json.loads(run(site, "-c", USE, str(file)).splitlines()[-1])
    assert used == ["acme_conv8.brains", True, [1, 2, 16, 24], True]


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
