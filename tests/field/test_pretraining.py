"""Pretraining: runs that cannot be continued, exports that would not load, unclear recipes."""

import logging
import multiprocessing.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.pretraining import (
    SMALL,
    same,
    small_mae2d_recipe,
    small_recipe,
    write_volume_file,
)
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import load_encoder
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.methods.braindino.objective import BrainDino

DOCS = Path(__file__).parents[2] / "docs" / "pretraining.md"
NEW_KEYS = {
    "encoder": ("initialisation", "drop_path_blocks", "rope_rescale_draw"),
    "objective": ("koleo_neighbours",),
    "optimiser": ("token_decay",),
}
IMPORTS = """
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Exported, Losses, Objective
from nnunet_fm_pretrain.engine.recipe import ObjectiveRecipe, Recipe
from nnunet_fm_pretrain.methods.dinov3 import build_dinov3, export_dinov3, three_channels
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    """Sixteen slices of two subjects."""
    folder = tmp_path_factory.mktemp("field")
    for subject in range(2):
        write_volume_file(folder / "mri" / f"S{subject}" / "t1.nii.gz", subject)
    prepare(folder / "mri", PrepareOptions(folder / "store", SMALL), processes=1)
    return SliceStore(folder / "store")


def run(recipe: Path | dict[str, Any], store: SliceStore, out: Path, *words: str) -> int:
    """`pretrain run` in this process."""
    if isinstance(recipe, dict):
        file = out.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(recipe))
        recipe = file
    given = ["--store", str(store.folder), "-o", str(out), "--accelerator", "cpu", *words]
    return main(["pretrain", "run", str(recipe), *given])


def named(**parts: Any) -> dict[str, object]:
    """A small BrainDINO recipe of four steps, which names its method."""
    optimiser = {"steps": 4, "warmup_steps": 1, **parts.pop("optimiser", {})}
    objective = {"method": "braindino", **parts.pop("objective", {})}
    return small_recipe(optimiser=optimiser, objective=objective, **parts)


@pytest.fixture(scope="module")
def begun(store: SliceStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with checkpoints after steps 2 and 4."""
    out = tmp_path_factory.mktemp("begun") / "run"
    assert run(named(run={"save_every": 2}), store, out) == 0
    return out


@pytest.fixture
def copy(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "run"))


def change(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = torch.load(file)
    edit(content)
    torch.save(content, file)


def test_an_export_that_would_not_load_is_not_written(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "encoder.pth"
    assert main(["pretrain", "export", str(copy), "-o", str(file)]) == 0
    before = file.read_bytes()
    key = "teacher.encoder.vit.blocks.0.attn.qkv.weight"
    change(checkpoints.latest(copy), lambda content: content["objective"][key].fill_(torch.nan))
    capsys.readouterr()
    assert main(["pretrain", "export", str(copy), "-o", str(file)]) == 2
    said = capsys.readouterr()
    assert f"would not load again, so {file} was not written" in said.err
    assert "not finite" in said.err
    assert "wrote" not in said.out
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("*.unchecked*"))


def test_an_export_that_is_read_as_something_else_is_refused(
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    export = BrainDino.export_encoder
    renamed: Any = lambda self: export(self)._replace(card="my_encoder.v1")  # noqa: E731
    monkeypatch.setattr(BrainDino, "export_encoder", renamed)
    assert main(["pretrain", "export", str(copy), "-o", str(tmp_path / "e.safetensors")]) == 2
    assert "exports my_encoder.v1 (dinov3_test16), which has to be" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.safetensors"))


def test_another_ending_is_refused_before_the_networks_are_built(
    begun: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BrainDino, "__init__", None)
    assert main(["pretrain", "export", str(begun), "-o", "encoder.onnx"]) == 2
    assert "'encoder.onnx'; allowed: a file to write that ends in .pth" in capsys.readouterr().err


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def lose(file: Path) -> None:
    change(file, lambda content: [content.pop(key) for key in ("recipe", "optimisers")])


def empty(file: Path) -> None:
    torch.save([1, 2], file)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "cannot be read"),
        (lose, "is damaged: it lacks recipe, optimisers"),
        (empty, "is not a checkpoint of `nnunet-fm pretrain run`"),
    ],
)
@pytest.mark.parametrize("command", ["run", "export"])
def test_a_damaged_checkpoint_is_named_with_what_follows(
    damage: Callable[[Path], None],
    reason: str,
    command: str,
    copy: Path,
    store: SliceStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, last = checkpoints.checkpoints(copy)

    def attempt() -> str:
        if command == "run":
            assert run(copy / "recipe.yaml", store, copy) == 2
        else:
            assert main(["pretrain", "export", str(copy), "-o", str(tmp_path / "e.pth")]) == 2
        return capsys.readouterr().err

    damage(last)
    said = attempt()
    assert f"{last} {reason}" in said
    assert "delete the file, and the run continues from step_00000002.pt" in said
    last.unlink()
    damage(first)
    assert "delete the file, and the run begins anew, as there is none before" in attempt()


@pytest.mark.parametrize("content", [{"network_weights": {}}, {"epoch": object}, b"text"])
def test_a_foreign_file_is_not_to_be_deleted(
    content: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkpoint_final.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    assert main(["pretrain", "export", str(file), "-o", str(tmp_path / "e.pth")]) == 2
    said = capsys.readouterr().err
    assert "give the folder of a run, or a file of its folder checkpoints" in said
    assert "delete" not in said


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (small_recipe(), True),
        ({k: v for k, v in small_recipe().items() if k != "objective"}, True),
        (named(), False),
        (small_mae2d_recipe(), False),
    ],
)
def test_a_recipe_without_a_method_is_said_to_be_braindino_s(
    recipe: dict[str, object], told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(recipe))
    with caplog.at_level(logging.WARNING):
        assert main(["pretrain", "run", str(file), "--store", str(tmp_path), "-o", "none"]) == 2
    sentence = "r.yaml names no method and is read as a recipe of braindino, as in version 0.1"
    assert (sentence in caplog.text) == told


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.method=mae", "unknown pretraining method 'mae'. Did you mean mae2d"),
        ("objective.method=mae2d", "unknown key 'objective.dino_head'"),
        ("optimizer.steps=5", "unknown key 'optimizer'. Did you mean optimiser"),
        ("run.save=5", "unknown key 'run.save'. Did you mean run.save_every"),
        ("optimisers.critic.clip=1", "unknown key 'optimisers.critic'. Allowed: main"),
        ("encoder.drop_path_block=constant", "Did you mean encoder.drop_path_blocks"),
    ],
)
def test_unknown_keys_are_named_before_anything_starts(
    override: str,
    message: str,
    store: SliceStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(named(), store, tmp_path / "run", override) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_recipe_is_refused_with_the_way_to_resume_the_run(
    copy: Path, store: SliceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = named(encoder={"initialisation": "dinov3"}, run={"save_every": 2})
    assert run(changed, store, copy) == 2
    said = capsys.readouterr().err
    assert "encoder.initialisation: timm and dinov3" in said
    assert f"resume it with its own recipe: {copy / 'recipe.yaml'}" in said


def test_workers_do_not_repeat_torch_s_own_warnings(begun: Path) -> None:
    """`begun` called the command line; workers get the interpreter's flags of this process."""
    flags: list[str] = multiprocessing.util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    program = "import warnings; warnings.warn('{} is deprecated', FutureWarning)"
    heard = []
    for name in ("`torch.jit.interface`", "`other`"):
        words = [sys.executable, *flags, "-c", program.format(name)]
        heard.append(subprocess.run(words, capture_output=True, text=True, check=True).stderr)
    assert heard[0] == ""
    assert "`other` is deprecated" in heard[1]


def without_new_keys(recipe: dict[str, Any]) -> None:
    """Make of a recipe's plain data what version 0.1 recorded."""
    for part, keys in NEW_KEYS.items():
        for key in keys:
            del recipe[part][key]
    del recipe["objective"]["masks"]["draw"]


def test_a_run_whose_recipe_lacks_later_keys_is_resumed_bit_equal(
    copy: Path, begun: Path, store: SliceStore
) -> None:
    first, last = checkpoints.checkpoints(copy)
    last.unlink()
    change(first, lambda content: without_new_keys(content["recipe"]))
    file = copy / "recipe.yaml"
    recorded = yaml.safe_load(file.read_text())
    without_new_keys(recorded)
    file.write_text(yaml.safe_dump(recorded))
    assert run(file, store, copy) == 0
    assert same(torch.load(last), torch.load(checkpoints.latest(begun)))


def test_the_method_of_the_documentation_trains_resumes_and_exports(
    store: SliceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = DOCS.read_text().split("<!-- method: begin -->")[1].split("<!-- method: end -->")[0]
    code = text.strip().removeprefix("```python").removesuffix("```")
    package = tmp_path / "package"
    metadata = package / "documented-1.0.dist-info"
    metadata.mkdir(parents=True)
    (package / "documented_method.py").write_text(IMPORTS + code)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: documented\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[nnunet_fm_pretrain.methods]\nmymethod = documented_method:METHOD\n"
    )
    monkeypatch.syspath_prepend(str(package))
    recipe = {
        "encoder": {"architecture": "dinov3_test16"},
        "objective": {"method": "mymethod"},
        "optimiser": {"steps": 4, "batch_size": 4, "warmup_steps": 1},
        "run": {"precision": "32-true", "workers": 0, "save_every": 2, "log_every": 2},
    }
    assert run(recipe, store, tmp_path / "run") == 0
    last = checkpoints.latest(tmp_path / "run")
    whole = torch.load(last)
    last.unlink()
    assert run(recipe, store, tmp_path / "run") == 0
    assert same(torch.load(last), whole)
    file = tmp_path / "encoder.safetensors"
    assert main(["pretrain", "export", str(tmp_path / "run"), "-o", str(file)]) == 0
    assert load_encoder(file)[1].about["method"] == "mymethod"
    warm = {**recipe, "encoder": {"architecture": "dinov3_test16", "init": str(file)}}
    assert run(warm, store, tmp_path / "warm") == 0
    sys.modules.pop("documented_method")
