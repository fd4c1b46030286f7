"""Runs as users start them: resumed, killed, on two processes; bit-equal where promised."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning_fabric import Fabric

from helpers.hub_server import COMMIT, Repository, serving, use_hub, weights
from helpers.pretraining import same, small_recipe
from nnunet_fm.encoders import load_encoder, random_state
from nnunet_fm.encoders.families.dinov3 import TRAINING_CODE
from nnunet_fm.encoders.families.dinov3_keys import to_dinov3
from nnunet_fm.encoders.loading.metadata import write_encoder
from nnunet_fm.internal.locks import one_writer
from nnunet_fm.internal.threads import torch_threads
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.devices import make_fabric
from nnunet_fm_pretrain.engine.loop import Engine
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.methods.braindino import METHOD
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoRecipe
from nnunet_fm_pretrain.methods.recipes import parse_recipe
from nnunet_fm_pretrain.runs import export, export_for_hub, pretrain

CALM = {"encoder": {"drop_path": 0.0, "rope_rescale": None}}


def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


def engine(recipe: Recipe, store: SliceStore, run: Path, start: Path | None = None) -> Engine:
    return Engine(METHOD, recipe, store, run, start, fabric())


def short(steps: int = 4, **parts: Any) -> Recipe:
    optimiser = {"steps": steps, "warmup_steps": 1, **parts.pop("optimiser", {})}
    return parse_recipe(small_recipe(optimiser=optimiser, **parts), "test")


def state(run: Path) -> dict[str, Any]:
    return checkpoints.load(checkpoints.latest(run))


def kill_everything_that_names(run: Path) -> None:
    """SIGKILL for the launcher and for its workers, which are sessions of their own."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(run).encode() in command.read_bytes():
                os.kill(int(command.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass


def read_log(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "log.csv").read_text().splitlines()))


def write_recipe(path: Path, **parts: Any) -> Path:
    path.write_text(yaml.safe_dump(small_recipe(**parts)))
    return path


def start(
    recipe: Path, store: SliceStore, run: Path, *more: str, processes: int = 1
) -> "subprocess.Popen[str]":
    words = [sys.executable, "-W", "ignore"]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words += [
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            str(processes),
            "--master_port",
            str(port),
        ]
    words += [
        "-m",
        "nnunet_fm_pretrain",
        "run",
        str(recipe),
        "--store",
        str(store.folder),
        "-o",
        str(run),
        *more,
    ]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process: "subprocess.Popen[str]", expect: int = 0) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == expect, said[-3000:]
    return said


def test_two_processes_killed_and_started_again_end_bit_equal(
    store: SliceStore, tmp_path: Path
) -> None:
    """Stochastic depth and stretched positions are on; the kill comes after the third step."""
    recipe = write_recipe(tmp_path / "r.yaml", optimiser={"steps": 200})
    finish(start(recipe, store, tmp_path / "whole", "run.save_every=100", processes=2))
    process = start(recipe, store, tmp_path / "killed", processes=2)
    while not checkpoints.checkpoints(tmp_path / "killed"):
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.002)
    kill_everything_that_names(tmp_path / "killed")
    process.communicate()
    assert state(tmp_path / "killed")["step"] < 200
    more = ("run.workers=2", "run.save_every=50")
    finish(start(recipe, store, tmp_path / "killed", *more, processes=2))
    whole, killed = state(tmp_path / "whole"), state(tmp_path / "killed")
    assert whole["step"] == 200
    assert same(whole["objective"], killed["objective"])
    assert same(whole["optimisers"], killed["optimisers"])


def test_two_ranks_equal_one_with_the_same_batch(store: SliceStore, tmp_path: Path) -> None:
    for centring in ("sinkhorn", "mean"):
        parts = {**CALM, "objective": {"centring": centring}, "optimiser": {"steps": 4}}
        recipe = write_recipe(tmp_path / "r.yaml", **parts)
        finish(start(recipe, store, tmp_path / f"{centring}1"))
        finish(start(recipe, store, tmp_path / f"{centring}2", processes=2))
        one, two = (state(tmp_path / f"{centring}{ranks}")["objective"] for ranks in (1, 2))
        for key in one:
            assert torch.allclose(one[key], two[key], rtol=1e-3, atol=1e-5), key
        logs = [read_log(tmp_path / f"{centring}{r}") for r in (1, 2)]
        assert float(logs[0][0]["koleo"]) == pytest.approx(float(logs[1][0]["koleo"]), abs=1e-3)


def test_a_stopped_run_continues_bit_equal_and_its_log_has_no_gap(
    store: SliceStore, tmp_path: Path
) -> None:
    recipe = short(8, run={"save_every": 3})
    engine(recipe, store, tmp_path / "whole").train()
    for path in checkpoints.checkpoints(tmp_path / "whole")[1:]:
        path.rename(tmp_path / path.name)  # as if it had been killed after step 3
    before = torch.load(tmp_path / "step_00000008.pt")
    engine(recipe, store, tmp_path / "whole").train()
    assert same(state(tmp_path / "whole"), before)
    steps = [int(r["step"]) for r in read_log(tmp_path / "whole")]
    assert steps == [1, 3, 5, 7]


def test_the_recipe_says_the_threads_and_a_resumed_run_says_another_number(
    store: SliceStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = short(3, run={"threads": 2})
    for threads in (1, 2):
        with torch_threads(threads):  # as OMP_NUM_THREADS sets them
            pretrain(recipe, store.folder, tmp_path / str(threads), accelerator="cpu")
            assert torch.get_num_threads() == threads
    assert same(state(tmp_path / "1"), state(tmp_path / "2"))
    assert not caplog.messages
    resumed = short(3, run={"threads": 1})
    pretrain(resumed, store.folder, tmp_path / "1", accelerator="cpu")
    assert "was trained with run.threads=2 and resumes with 1" in caplog.text


def test_a_finished_run_is_left_alone(store: SliceStore, tmp_path: Path) -> None:
    recipe = short(2)
    assert engine(recipe, store, tmp_path).train()
    before = state(tmp_path)
    assert engine(recipe, store, tmp_path).train()
    assert same(state(tmp_path), before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_is_the_exit_code(
    number: int, code: int, store: SliceStore, tmp_path: Path
) -> None:
    """The signal goes to the whole group, as launchers send it, while it waits for a worker."""
    run = {"save_every": 100_000, "workers": 1}
    slow = {"slice_size": 4096}  # resized by the worker
    recipe = write_recipe(tmp_path / "r.yaml", optimiser={"steps": 100_000}, run=run, views=slow)
    process = start(recipe, store, tmp_path / "run")
    while not (tmp_path / "run" / "log.csv").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)
    said = finish(process, code)
    assert "Rerun the command to resume" in said
    assert "Traceback" not in said
    assert 0 < state(tmp_path / "run")["step"] < 100_000


def test_a_second_process_in_one_folder_is_refused(store: SliceStore, tmp_path: Path) -> None:
    with one_writer(tmp_path), pytest.raises(RuntimeError, match=f"{tmp_path} is being written by"):
        pretrain(short(2), store.folder, tmp_path, accelerator="cpu")
    assert not checkpoints.checkpoints(tmp_path)
    assert pretrain(short(2), store.folder, tmp_path, accelerator="cpu")


def test_the_last_checkpoints_are_kept(store: SliceStore, tmp_path: Path) -> None:
    engine(short(7, run={"save_every": 2, "keep": 2}), store, tmp_path).train()
    assert [p.name for p in checkpoints.checkpoints(tmp_path)] == [
        "step_00000006.pt",
        "step_00000007.pt",
    ]


def test_another_run_is_not_resumed(store: SliceStore, volumes: Path, tmp_path: Path) -> None:
    engine(short(2), store, tmp_path).train()
    with pytest.raises(ValueError, match=r"another recipe. Different: seed: 0 and 5"):
        engine(short(2, seed=5), store, tmp_path)
    with pytest.raises(
        ValueError, match=r"holds a stage 1 run, this recipe is of stage 2.*--init-from"
    ):
        engine(short(2, stage=2), store, tmp_path)
    smaller = SliceStore(store.folder)
    smaller.records = smaller.records[:-1]
    with pytest.raises(ValueError, match="is not the one that .* was begun with"):
        engine(short(2), smaller, tmp_path)


def test_a_damaged_checkpoint_is_named(store: SliceStore, tmp_path: Path) -> None:
    engine(short(2), store, tmp_path).train()
    path = checkpoints.latest(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(
        ValueError, match=f"{path.name} cannot be read .* delete the file, and the run begins anew"
    ):
        engine(short(2), store, tmp_path)


def test_stage_two_starts_from_stage_one(store: SliceStore, tmp_path: Path) -> None:
    engine(short(2), store, tmp_path / "one").train()
    second = short(
        1, stage=2, views={"slice_size": 64, "pairs": [{"global_size": 48, "local_size": 24}]}
    )
    with pytest.raises(ValueError, match="starts from a stage 1 run; add: --init-from RUN"):
        engine(second, store, tmp_path / "two")
    begun = engine(second, store, tmp_path / "two", start=tmp_path / "one")
    assert same(dict(begun.objective.state_dict()), state(tmp_path / "one")["objective"])
    assert begun.step == 0
    begun.train()
    assert export(tmp_path / "two", tmp_path / "e.pth")["subjects"] == 6
    wider = short(1, stage=2, objective={"dino_head": {"prototypes": 48}})
    with pytest.raises(
        ValueError, match=r"the networks of .* differ .*dino_.* allowed: the same networks"
    ):
        engine(wider, store, tmp_path / "four", start=tmp_path / "one")
    other = short(1, stage=2, encoder={"architecture": "dinov3_nano8"})
    with pytest.raises(ValueError, match="trained dinov3_test16, this recipe trains dinov3_nano8"):
        engine(other, store, tmp_path / "three", start=tmp_path / "one")


def test_steps_without_a_finite_gradient_are_skipped_and_counted(
    store: SliceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, cls: torch.Tensor) -> torch.Tensor:
        return cls.sum() * torch.nan

    made = engine(short(3), store, tmp_path / "a")
    before = {k: v.clone() for k, v in made.objective.state_dict().items()}
    monkeypatch.setattr("nnunet_fm_pretrain.methods.braindino.objective.BrainDino._koleo", broken)
    made.train()
    assert made.skipped_steps == state(tmp_path / "a")["skipped_steps"] == 3
    assert same(before, dict(made.objective.state_dict()))
    with pytest.raises(
        FloatingPointError, match=r"3 steps without a finite gradient.*Lower optimiser.peak_lr"
    ):
        engine(short(9, run={"max_skipped_steps": 2}), store, tmp_path / "b").train()


def test_fewer_slices_than_a_batch(store: SliceStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="96 slices, fewer than one batch of 100"):
        engine(short(2, optimiser={"batch_size": 100}), store, tmp_path).train()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_an_export_is_loaded_without_further_options(
    store: SliceStore, tmp_path: Path, ending: str
) -> None:
    made = engine(short(2), store, tmp_path / "run")
    made.train()
    card = export(tmp_path / "run", tmp_path / f"encoder{ending}")
    encoder, report = load_encoder(tmp_path / f"encoder{ending}")
    assert report.card == card["card"] == "dinov3_test16.trained"
    assert report.about["subjects"] == 6
    assert (report.options, report.missing) == ({"norm_eps": 1e-6, "rope": "bfloat16"}, [])
    teacher: Any = made.objective.teacher.encoder.eval()
    encoder.set_fused_attention(False)  # as the teacher on a CPU
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(encoder.embed(x), teacher.embed(x))
    assert BrainDinoRecipe.model_validate_json(report.about["recipe"]) == made.recipe


def test_a_warm_start_says_what_follows_for_the_licence(
    store: SliceStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine(short(2), store, tmp_path / "one").train()
    export(tmp_path / "one", tmp_path / "encoder.pth")
    warm = short(2, encoder={"init": str(tmp_path / "encoder.pth")})
    begun = engine(warm, store, tmp_path / "two")
    assert "a derivative of dinov3_test16.trained, to be passed on under the terms" in caplog.text
    assert same(
        dict(begun.objective.teacher.encoder.state_dict()),
        dict(load_encoder(tmp_path / "encoder.pth")[0].state_dict()),
    )
    begun.train()
    second = export(tmp_path / "two", tmp_path / "second.pth")
    assert "derivative" in second["licence"]
    assert json.loads(second["recipe"])["encoder"]["init"] == "encoder.pth"  # not whose folder
    last = engine(short(1, stage=2), store, tmp_path / "last", start=tmp_path / "two")
    last.train()
    assert "derivative" in export(tmp_path / "last", tmp_path / "third.pth")["licence"]
    with pytest.raises(
        ValueError,
        match="holds dinov3_test16, the recipe asks for dinov3_nano8; .* encoder.card=dinov3_nano8",
    ):
        wrong = {"init": str(tmp_path / "encoder.pth"), "architecture": "dinov3_nano8"}
        engine(short(2, encoder=wrong), store, tmp_path / "three")


def test_a_warm_start_from_the_hub_names_the_commit_and_keeps_the_licence(
    store: SliceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories = {"lab/nd": Repository({"m.safetensors": weights()}, licence="cc-by-nc-nd-4.0")}
    pinned = f"hf://lab/nd@{COMMIT}/m.safetensors"
    with serving(repositories) as hub:
        use_hub(monkeypatch, hub.endpoint, tmp_path / "hub")
        with pytest.raises(ValueError, match=f"without the commit, .*type encoder.init={pinned}"):
            engine(short(2, encoder={"init": "hf://lab/nd"}), store, tmp_path / "one")
    begun = engine(short(2, encoder={"init": pinned}), store, tmp_path / "two")  # from the cache
    begun.train()
    card = export(tmp_path / "two", tmp_path / "second.pth")
    assert "cc-by-nc-nd-4.0 (as its repository states)" in card["licence"]
    assert json.loads(card["recipe"])["encoder"]["init"] == pinned
    with pytest.raises(ValueError, match="--i-have-permission"):
        export_for_hub(tmp_path / "two", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_devices_are_those_of_the_launcher(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "NTASKS": 8,
        "NTASKS_PER_NODE": 4,
        "NODEID": 1,
        "PROCID": 5,
        "LOCALID": 1,
        "JOB_NAME": "x",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    made = make_fabric(recipe.run, "cpu")
    assert (made.world_size, made.global_rank, made.local_rank) == (8, 5, 1)


def test_crops_off_the_grid_are_refused(store: SliceStore, tmp_path: Path) -> None:
    odd = {"pairs": [{"global_size": 40, "local_size": 16}]}
    with pytest.raises(ValueError, match="crops of 40 and 16 px for patches of 16"):
        engine(short(1, views=odd), store, tmp_path).train()


def test_a_file_cannot_name_a_class_to_import(tmp_path: Path) -> None:
    state = random_state("dinov3_test16", 0, **TRAINING_CODE)
    write_encoder(
        tmp_path / "braindino.safetensors", to_dinov3(state), {"card": "subprocess.Popen"}
    )
    assert load_encoder(tmp_path / "braindino.safetensors")[1].card == "dinov3_test16.trained"
