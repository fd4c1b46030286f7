"""Files, folders and names that are not what an option needs, for every command.

The command lines derive from the parsers; a small table makes the rest of each line valid, so that
the check of the one option is reached.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants

from helpers import option_rows
from helpers.encoder_files import official
from helpers.heads import two_encoders
from helpers.label_files import write_labels
from helpers.option_rows import Command, Samples
from helpers.planned_dataset import write_planned
from helpers.pretraining import small_recipe
from helpers.tables import write_table, write_volume_file
from nnunet_fm.cli import main as main_module
from nnunet_fm.internal import option_types
from nnunet_fm.internal.option_types import ExistingPath, KeyValue

FREE = {"title", "licence", "targets", "output", "prefer"}  # any text, or checked elsewhere
FREE_OF_COMMAND = {("pretrain prepare", "dataset")}
NOT_RUN = {"demo", "exec", "pretrain synthesise"}  # take minutes, or any program


class Valid:
    """A valid value for options, by command and by destination."""

    def __init__(self, folder: Path, samples: Samples) -> None:
        self.samples = samples
        table, cache = two_encoders(folder, 12)
        volumes = folder / "volumes"
        image = write_volume_file(volumes / "s1_T1.nii.gz", 1)
        rows = [{"subject_id": "s1", "T1": str(image), "split": "train", "age": "50"}]
        encoder = folder / "encoder.pth"
        torch.save(official(), encoder)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(small_recipe()))
        (folder / "sweep.yaml").write_text("{datasets: [31], encoders: {a: {}}}")
        self.values = {
            "table": str(table),
            "cache": str(cache.folder),
            "task": "classification",
            "first": "aa",
            "second": "bb",
            "config": str(folder / "sweep.yaml"),
            "recipe": str(folder / "recipe.yaml"),
            "name": "dinov3_test16",
            "d": "31",
            "n": "Made",
            "extract encoder": "dinov3_test16",
            "extract table": str(write_table(folder / "volumes.csv", rows)),
            "extract shape": "32",
            "similarity encoder": "dinov3_test16",
            "info encoder": "dinov3_test16",
            "plan encoder": "dinov3_test16",
            "verify file": str(encoder),
            "probe encoders": str(encoder),
            "probe targets": "age",
            "probe table": str(folder / "volumes.csv"),
            "volume": str(image),
            "source": str(volumes),
        }
        for side in ("predictions", "truth"):
            labels = torch.zeros(8, 8, 8, dtype=torch.uint8).numpy()
            labels[2:4] = 1
            write_labels(folder / side / "a.nii.gz", labels)
            facts = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
            (folder / side / "dataset.json").write_text(json.dumps(facts))
            self.values[side] = str(folder / side)

    def __call__(self, command: Command, option: argparse.Action) -> str:
        for key in (f"{command.words[-1]} {option.dest}", option.dest):
            if key in self.values:
                return self.values[key]
        return option_rows.right_word(option, self.samples)


def wrong_values(option: argparse.Action, folder: Path) -> Iterator[str]:
    """Yield files and folders of another kind, and names of nothing."""
    kind = option.type
    if isinstance(kind, ExistingPath):
        if kind.file:
            yield from (str(folder / name) for name in ("bytes", "empty", "text", "list.json"))
        if kind.folder:
            yield str(folder / "nothing")
            yield str(folder / "others")
    elif kind in (option_types.text, option_types.encoder):
        yield from (
            "no_such_thing",
            "../no_such_thing",
            "患" * 60,
            "a\x07b",
            str(folder / "nothing"),
        )
        if not option.required or not option.option_strings:
            yield str(folder / "bytes")
    elif kind is option_types.name:
        yield "no_such_thing"
    elif isinstance(kind, KeyValue):
        yield from ("no_such_key=1", "a.b.c=1", "=", "x=[", "x={a: [1}", "x=!!python/object:os.a 1")


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "bytes").write_bytes(b"\xff\xfe\x00\x80" * 99)
    (folder / "empty").touch()
    (folder / "text").write_text("hello\n")
    (folder / "list.json").write_text("[1]")
    (folder / "nothing").mkdir()
    (folder / "others").mkdir()
    (folder / "others" / "bytes").write_bytes(b"\xff\xfe\x00\x80")
    return folder


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Valid:
    folder = tmp_path_factory.mktemp("valid")
    return Valid(folder, Samples.make(tmp_path_factory.mktemp("samples")))


COMMANDS = [c for c in option_rows.every_command() if " ".join(c.words) not in NOT_RUN]


@pytest.mark.parametrize("command", COMMANDS, ids=[" ".join(c.words) for c in COMMANDS])
def test_wrong_contents_are_one_message(
    command: Command, valid: Valid, wrong: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in write_planned(tmp_path / "nn", 6).environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # names of nothing are not asked for
    parser = main_module.build_parser()
    monkeypatch.setattr(main_module, "build_parser", lambda: parser)
    monkeypatch.chdir(tmp_path)
    problems = []
    for option in command.options:
        if option.dest in FREE or (" ".join(command.words), option.dest) in FREE_OF_COMMAND:
            continue
        for value in wrong_values(option, wrong):
            line = option_rows.line(command, option, value, valid)
            code, said = option_rows.outcome(line)
            if "Traceback" in said or code not in (1, 2):
                problems.append(f"{code} {' '.join(line)}: {said[-400:]}")
    assert not problems, "\n".join(problems)
