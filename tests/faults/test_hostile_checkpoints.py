"""PyTorch files made by others: no code of theirs runs, and no size or nesting is unlimited."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

from nnunet_fm.encoders.loading.read import read_tensors, unwrap
from nnunet_fm.internal import torch_files
from nnunet_fm.internal.errors import InputError
from nnunet_fm.nnunet.checkpoint_file import RESUME, read_checkpoint, restricted_loading
from nnunet_fm.nnunet.checkpoint_mixins import StrictResumeMixin
from nnunet_fm.nnunet.export import export_model
from nnunet_fm.nnunet.predictor import BatchedPredictor
from nnunet_fm_pretrain.engine.checkpoints import load

PLANS = {"plans_name": "nnUNetPlans", "configurations": {"2d": {}}}


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


def checkpoint(**more: Any) -> dict[str, Any]:
    """Return what nnU-Net's trainer saves."""
    log = {"mean_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(1.5)]}
    arguments = {"plans": PLANS, "configuration": "2d", "fold": 0, "device": torch.device("cpu")}
    return {
        "network_weights": {"a": torch.ones(2)},
        "optimizer_state": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []},
        "grad_scaler_state": None,
        "logging": log,
        "_best_ema": np.float64(0.25),
        "current_epoch": 3,
        "init_args": arguments | {"dataset_json": {"labels": {"background": 0}}},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
        **more,
    }


def model_with(content: Any, folder: Path) -> Path:
    """Write a trained model folder with one fold, and return its checkpoint."""
    fold = folder / "fold_0"
    fold.mkdir(parents=True)
    (folder / "plans.json").write_text('{"configurations": {}}')
    (folder / "dataset.json").write_text("{}")
    torch.save(content, fold / "checkpoint_final.pth")
    return fold / "checkpoint_final.pth"


def export(file: Path) -> None:
    export_model(file.parents[1], file.parents[2] / "out")


def predict(file: Path) -> None:
    predictor = BatchedPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(file.parents[1]), (0,))


def resume(file: Path) -> None:
    trainer = StrictResumeMixin()
    trainer.load_checkpoint(str(file))


OPENERS: list[Callable[[Path], Any]] = [
    read_checkpoint,
    export,
    predict,
    resume,
    read_tensors,
    load,
]


@pytest.mark.parametrize("open_file", OPENERS)
def test_no_pickled_code_runs(open_file: Callable[[Path], Any], tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    file = model_with(checkpoint(logging=Bomb(marker)), tmp_path / "model")
    with pytest.raises(InputError, match=r"checkpoint_final\.pth"):
        open_file(file)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("open_file", [read_checkpoint, read_tensors])
def test_no_code_in_a_bare_pickle_runs(
    open_file: Callable[[Path], Any], protocol: int, tmp_path: Path
) -> None:
    file = tmp_path / "encoder.pth"
    file.write_bytes(pickle.dumps(Bomb(tmp_path / "executed"), protocol))
    with pytest.raises(InputError, match=r"encoder\.pth"):
        open_file(file)
    assert not (tmp_path / "executed").exists()


def test_the_refusal_names_the_type_and_the_flag(tmp_path: Path) -> None:
    file = model_with(checkpoint(extra=Bomb(tmp_path / "executed")), tmp_path / "model")
    with pytest.raises(InputError, match=r"needs (posix|nt)\.mkdir, .* --trust-checkpoint"):
        export(file)
    with pytest.raises(InputError, match=r"or train without --c"):
        resume(file)
    assert not (tmp_path / "executed").exists()
    read_checkpoint(file, trust=True)
    assert (tmp_path / "executed").exists()


def test_a_checkpoint_of_nnunet_is_read_as_it_was_saved(tmp_path: Path) -> None:
    saved = checkpoint()
    read = read_checkpoint(model_with(saved, tmp_path / "model"))
    assert read["logging"] == saved["logging"]
    assert [type(read["_best_ema"]), read["init_args"]] == [np.float64, saved["init_args"]]
    assert torch.equal(read["network_weights"]["a"], torch.ones(2))


def test_numbers_of_numpy_1_are_read(tmp_path: Path) -> None:
    file = model_with(checkpoint(), tmp_path / "model")
    inside = zipfile.ZipFile(file)
    old = tmp_path / "old.pth"
    with zipfile.ZipFile(old, "w") as archive:
        for member in inside.infolist():
            content = inside.read(member).replace(b"numpy._core.multi", b"numpy.core.multi")
            archive.writestr(member.filename, content)
    assert read_checkpoint(old)["_best_ema"] == 0.25


def test_other_types_of_numpy_are_refused(tmp_path: Path) -> None:
    file = model_with(checkpoint(extra=np.void(b"x" * 100)), tmp_path / "model")
    with pytest.raises(InputError, match=r"it needs numpy\.dtype"):
        read_checkpoint(file)


def nested(depth: int) -> dict[str, Any]:
    content: dict[str, Any] = {"a": torch.ones(1)}
    for _ in range(depth):
        content = {"model": content}
    return content


def inside_itself(name: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    content[name] = content
    return content


def doubled(times: int) -> list[Any]:
    """Return a list of 2 ** times items that is saved in a few bytes for each doubling."""
    content: list[Any] = [1]
    for _ in range(times):
        content = [content, content]
    return content


BOMBS = {
    "itself": inside_itself("state_dict"),
    "another itself": inside_itself("x"),
    "nested": nested(200),
    "doubled": {"model": doubled(40)},
    "expanded": {"a": torch.ones(1).expand(1 << 40)},
    "no values": {"a": torch.ones(1 << 40, device="meta")},
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("open_file", [read_tensors, read_checkpoint, load])
def test_a_bomb_is_refused(
    open_file: Callable[[Path], Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "encoder.pth"
    torch.save(BOMBS[name], file)
    monkeypatch.setattr(torch_files, "MOST_ITEMS", 10_000)
    with pytest.raises(InputError, match=r"encoder\.pth (contains itself|holds)"):
        open_file(file)


def test_an_archive_that_unpacks_to_more_than_the_memory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "encoder.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    assert file.stat().st_size < 1 << 16
    free = SimpleNamespace(available=1 << 20)
    with (
        mock.patch("psutil.virtual_memory", return_value=free),
        pytest.raises(InputError, match=r"encoder\.pth needs 0\.0156 GiB of memory"),
    ):
        read_tensors(file)


@pytest.mark.parametrize("header", [1 << 60, 1 << 20, 8])
def test_a_safetensors_header_that_lies_is_refused(header: int, tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    entry = b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,399999999996]}}'
    file.write_bytes(header.to_bytes(8, "little") + entry + bytes(16))
    with pytest.raises(InputError, match=r"encoder\.safetensors is not a readable"):
        read_tensors(file)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"init_args": []}, "have to be dictionaries"),
        ({"init_args": {"plans": [], "configuration": "2d"}}, "no configuration"),
        ({"init_args": {"plans": PLANS, "configuration": "3d"}}, "no configuration"),
        ({"network_weights": None}, "have to be dictionaries"),
    ],
)
def test_an_edited_checkpoint_is_refused(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    file = model_with(checkpoint(**change), tmp_path / "model")
    with pytest.raises(InputError, match=rf"checkpoint_final\.pth.* {sentence}"):
        export(file)


def test_tensors_under_no_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tensors found"):
        unwrap({"model": {"teacher": {}}})


@pytest.mark.parametrize("module", [predict_from_raw_data, stock])
def test_torch_is_given_back_to_nnunet(module: Any) -> None:
    with pytest.raises(ValueError, match="stop"), restricted_loading(module, remedy=RESUME):
        assert module.torch.nn is torch.nn
        raise ValueError("stop")
    assert module.torch is torch


def test_a_folder_of_the_users_is_kept(tmp_path: Path) -> None:
    own = tmp_path / "out.partial"
    own.mkdir()
    (own / "notes").touch()
    export(model_with(checkpoint(), tmp_path / "model"))
    assert (own / "notes").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out", "out.partial"]
