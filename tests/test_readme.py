"""The README's example, and the commands, links and paths of every page."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nnunet_fm.cli.main import build_parser, parse
from nnunet_fm.encoders import load_encoder
from nnunet_fm.internal import option_types
from nnunet_fm.network.frozen import FrozenEncoderNetwork

BINARY = (".safetensors", ".gz", ".xz")
ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
ROOMS = "|".join(p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith("."))


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


def documented_commands() -> list[str]:
    """Return the `nnunet-fm` commands of all pages, as one line each."""
    commands = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            commands += [" ".join(line.split()) for line in lines if line.startswith("nnunet-fm ")]
    return sorted(set(commands))


def is_there(test: Callable[[Path], bool], path: Path) -> bool:
    """Pretend that every weight file exists."""
    return test is os.path.exists and path.suffix in option_types.WEIGHT_SUFFIXES


@pytest.mark.parametrize("command", documented_commands())
def test_every_documented_command_is_parsed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(option_types.ExistingPath, "__call__", lambda _, given: Path(given))
    monkeypatch.setattr(option_types, "_is", is_there)
    _, *words = shlex.split(command, comments=True)
    assert parse(words).function is not None


def test_every_command_in_the_text_of_the_readme_exists() -> None:
    commands = set(re.findall(r"`nnunet-fm ([\w-]+)", README))
    assert commands <= set(build_parser()._subparsers._group_actions[0].choices)
    assert len(commands) >= 7


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link
    for name in re.findall(rf"`((?:{ROOMS})/[\w/.-]*\w/?)`", text):
        assert (ROOT / name).exists(), name


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
