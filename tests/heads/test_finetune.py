"""Fine-tuning on volumes: what is trained, which epoch is kept, and runs from end to end."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nnunet_fm import heads
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.slicewise import SliceWise
from nnunet_fm.features.extraction import open_encoder
from nnunet_fm.heads.finetune.network import FineTunedNetwork, unfrozen_parameters
from nnunet_fm.heads.finetune.settings import FineTuneTask, FineTuning
from nnunet_fm.heads.finetune.training import InnerSplit, train
from nnunet_fm.heads.models.training_target import TrainingTarget
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import Task
from nnunet_fm.heads.task_data import TaskInputs

QUICK = ("finetune.epochs=3", "finetune.batch_size=4", "finetune.learning_rate=0.01", "folds=2")
ENCODER = "volta3d_test8"
SIDE = 16


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen heads; those of class `b` have a bright half."""
    folder = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    file = folder / "subjects.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["subject_id", "T1", "label", "age"])
        for subject in range(16):
            values = 50 + 5 * rng.standard_normal((18, 20, 22))
            if subject % 2:
                values[:, :, 11:] += 60
            image = nib.Nifti1Image(values.astype(np.float32), np.eye(4))
            nib.save(image, folder / f"{subject}.nii.gz")
            writer.writerow([f"s{subject}", f"{subject}.nii.gz", "ab"[subject % 2], 20 + subject])
    return file


def inputs_of(table: Path, cache: Path, *overrides: str) -> TaskInputs:
    keys = ["target=label", *QUICK, *overrides]
    return heads.open_task("classification", table, cache, keys, kind=FineTuneTask)


def run(table: Path, work: Path, *overrides: str, encoder: str = ENCODER) -> Any:
    module, recipe = open_encoder(encoder, shape=(SIDE,) * 3, precision="float32")
    inputs = inputs_of(table, work / "cache", *overrides)
    return finetuned(inputs, module, recipe, work / "heads")


def finetuned(inputs: TaskInputs, encoder: Any, recipe: Any, out: Path) -> Any:
    data = heads.finetune_data(inputs, encoder, recipe, out, processes=0)
    return heads.run_task(data, out, figures=False)


@pytest.mark.parametrize(("unfreeze", "blocks"), [(0, 0), (1, 1), (2, 2)])
def test_only_the_last_blocks_and_the_final_norm_are_trained(unfreeze: int, blocks: int) -> None:
    encoder = build_encoder(ENCODER)
    network = FineTunedNetwork(encoder, unfreeze, torch.zeros(1, 1, SIDE, SIDE, SIDE), 2)
    names = {name for name in network.trained() if name.startswith("encoder.")}
    numbers = {name.split("blocks.")[1].split(".")[0] for name in names if "blocks." in name}
    depth = len(cast(nn.ModuleList, encoder.vit.blocks))  # type: ignore[union-attr]
    assert numbers == {str(depth - 1 - n) for n in range(blocks)}
    assert any(".norm." in name and "blocks" not in name for name in names) == (unfreeze > 0)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    x = torch.randn(2, 1, SIDE, SIDE, SIDE)
    optimiser = torch.optim.SGD(network.trained().values(), lr=1.0)
    network.head(network.embed(x)).square().sum().backward()
    optimiser.step()
    changed = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert changed <= set(network.trained())
    assert {"head.1.weight", "head.1.bias"} <= changed
    assert any("blocks" in name for name in changed) == (unfreeze > 0)
    own = dict(encoder.named_parameters())  # the encoder that was given is copied
    assert all(
        torch.equal(own[n.removeprefix("encoder.")], p)
        for n, p in before.items()
        if n.startswith("encoder.")
    )


def test_more_blocks_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match=r"finetune.unfreeze=99; allowed: 0 to \d+, or all"):
        unfrozen_parameters(build_encoder(ENCODER), 99)
    with pytest.raises(ValueError, match="no blocks to tell apart; allowed: 0, all"):
        unfrozen_parameters(build_encoder("volume_testswin"), 1)
    everything = list(build_encoder(ENCODER).parameters())
    assert len(unfrozen_parameters(build_encoder(ENCODER), "all")) == len(everything)


def one_weight() -> FineTunedNetwork:
    """A network whose only trained parameter is a factor of the vectors, 1 at first."""
    network = FineTunedNetwork(build_encoder(ENCODER), 0, torch.zeros(1, 1, 8, 8, 8), 1)
    linear = nn.Linear(1, 1, bias=False)
    nn.init.ones_(linear.weight)
    network.head = nn.Sequential(linear)
    return network


def test_the_epoch_with_the_lowest_validation_loss_is_kept_and_patience_ends() -> None:
    # training pulls the weight from 1 to -1; the validation case is best at 0.8
    task = Task(kind="regression", target="y", standardise_target=False)
    values = np.array([-1.0, 0.8])
    targets = Targets(np.arange(2), values, np.ones(2, bool), (), 0)
    network = one_weight()
    settings = FineTuning(epochs=50, batch_size=1, learning_rate=0.1, weight_decay=0, patience=4)
    rows = torch.arange(2)
    vectors = torch.ones(2, 1)
    done = train(
        network,
        lambda r: vectors[r],
        TrainingTarget(task, targets),
        InnerSplit(rows[:1], rows[1:]),
        settings,
        0,
    )
    assert (done.epoch, done.epochs) == (2, 6)
    assert float(network.head[0].weight.detach()) == pytest.approx(0.8, abs=0.02)  # type: ignore[operator]
    last = one_weight()
    done = train(
        last,
        lambda r: vectors[r],
        TrainingTarget(task, targets),
        InnerSplit(rows[:1], rows[:0]),
        settings,
        0,
    )
    assert (done.epoch, done.epochs) == (50, 50)
    assert float(last.head[0].weight.detach()) < -0.5  # type: ignore[operator]


def test_balanced_classes_weigh_the_same() -> None:
    task = Task(kind="classification", target="y")
    targets = Targets(np.arange(4), np.array([0.0, 0, 0, 1]), np.ones(4, bool), ("a", "b"), 0)
    outputs = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    of_each = nn.functional.cross_entropy(outputs, torch.tensor([0, 0, 0, 1]), reduction="none")
    rows = torch.arange(4)
    plain = TrainingTarget(task, targets).loss(outputs, rows)
    balanced = TrainingTarget(task, targets, balanced=True).loss(outputs, rows)
    assert float(plain) == pytest.approx(float(of_each.mean()))
    expected = (of_each[:3].mean() + of_each[3]) / 2
    assert float(balanced) == pytest.approx(float(expected))


def test_a_task_is_learned_and_a_rerun_reads_what_was_trained(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("finetune.unfreeze=all", "finetune.epochs=12", "finetune.validation=0")
    found = run(table, tmp_path, *overrides)
    auc = {r.model: r.value for r in found.results if r.metric == "AUC"}
    assert auc["finetuned"] > 0.9
    assert auc["trivial"] == pytest.approx(0.5)
    assert {r.tested for r in found.results} == {"2 folds"}
    trainings = sorted((found.folder / "trainings").glob("*.safetensors"))
    assert len(trainings) == 2
    for file in found.folder.glob("ratio_*.json"):
        file.unlink()

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("nnunet_fm.heads.finetune.fitter.train", never)
    again = run(table, tmp_path, *overrides)
    assert again.results == found.results
    trainings[0].write_bytes(trainings[0].read_bytes()[:100])
    for file in found.folder.glob("ratio_*.json"):
        file.unlink()
    with pytest.raises(ValueError, match=r"is damaged .*; delete it, and rerun the command"):
        run(table, tmp_path, *overrides)


def test_the_same_seed_gives_the_same_predictions_and_leaves_the_generator(
    table: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = run(table, tmp_path / "a")
    assert torch.equal(torch.rand(1), expected)
    second = run(table, tmp_path / "b")
    assert first.results == second.results


def test_frozen_is_a_linear_head_on_the_vectors(table: Path, tmp_path: Path) -> None:
    found = run(table, tmp_path, "finetune.unfreeze=0")
    (file, *_) = (found.folder / "trainings").iterdir()
    assert set(load_file(file)) == {"head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"}


def test_validation_subjects_are_training_subjects_of_their_own(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[int], set[int]]] = []

    def record(network: Any, vectors: Any, target: Any, split: InnerSplit, *rest: Any) -> Any:
        seen.append((set(split.train.tolist()), set(split.validation.tolist())))
        return train(network, vectors, target, split, *rest)

    monkeypatch.setattr("nnunet_fm.heads.finetune.fitter.train", record)
    run(table, tmp_path, "finetune.validation=0.25")
    assert len(seen) == 2
    for trained, chosen in seen:
        assert not trained & chosen
        assert trained | chosen == set(range(8))
        assert len(chosen) == 2


def test_encoders_of_slices_see_all_slices(table: Path, tmp_path: Path) -> None:
    found = run(table, tmp_path, "finetune.unfreeze=1", encoder="dinov3_test16")
    assert {r.model for r in found.results} == {"finetuned", "trivial"}
    assert SliceWise(build_encoder("dinov3_test16")).depth == 4


def test_encoders_share_the_prepared_volumes(table: Path, tmp_path: Path) -> None:
    run(table, tmp_path, "finetune.epochs=1")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.safetensors")}
    assert len(files) == 16
    module, recipe = open_encoder(ENCODER, seed=1, shape=(SIDE,) * 3, precision="float32")
    inputs = inputs_of(table, tmp_path / "cache", "finetune.epochs=1")
    finetuned(inputs, module, recipe, tmp_path / "heads")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.safetensors")} == files
    assert len(list((tmp_path / "heads").rglob("results.csv"))) == 2
    (damaged,) = list(files)[:1]
    damaged.write_bytes(damaged.read_bytes()[:-50])
    again = inputs_of(table, tmp_path / "cache", "finetune.epochs=2")
    finetuned(again, module, recipe, tmp_path / "heads")
    assert damaged.stat().st_mtime_ns != files[damaged]  # prepared again


def test_regression_is_in_the_units_of_the_target(table: Path, tmp_path: Path) -> None:
    module, recipe = open_encoder(ENCODER, shape=(SIDE,) * 3, precision="float32")
    keys = ["target=age", *QUICK]
    inputs = heads.open_task("regression", table, tmp_path / "c", keys, kind=FineTuneTask)
    found = finetuned(inputs, module, recipe, tmp_path / "o")
    mae = {r.model: r.value for r in found.results if r.metric == "MAE"}
    assert 2 < mae["finetuned"] < 12
    assert 2 < mae["trivial"] < 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["finetune.unfreeze=-1"], "finetune.unfreeze"),
        (["finetune.unfreezed=1"], "finetune.unfreezed"),
        (["finetune.validation=0.9"], "finetune.validation"),
        (["kind=survival", "event=died", "head.batch_size=null"], "kind survival compares"),
        (["kind=regression", "finetune.balanced=true"], "finetune.balanced is for classification"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    overrides: list[str], message: str, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        inputs_of(table, tmp_path, *overrides)


def test_a_task_for_heads_and_several_volumes_per_case_are_refused(
    table: Path, tmp_path: Path
) -> None:
    module, recipe = open_encoder(ENCODER, shape=(SIDE,) * 3, precision="float32")
    plain = heads.open_task("classification", table, tmp_path, ["target=label"])
    with pytest.raises(ValueError, match="is for heads on features"):
        finetuned(plain, module, recipe, tmp_path / "o")
    lines = table.read_text().splitlines()
    two = table.parent / "two.csv"
    two.write_text("\n".join([lines[0] + ",T2", *(f"{x},{x.split(',')[1]}" for x in lines[1:])]))
    with pytest.raises(ValueError, match=r"volumes of T1, T2, .*modalities=\[T1\]"):
        finetuned(inputs_of(two, tmp_path), module, recipe, tmp_path / "o")
    (table.parent / "bad.nii.gz").write_text("no image")
    lines[3] = lines[3].replace("2.nii.gz", "bad.nii.gz")
    bad = table.parent / "bad.csv"
    bad.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="1 volume cannot be used: s2 T1"):
        finetuned(inputs_of(bad, tmp_path), module, recipe, tmp_path / "o")
    with pytest.raises(ValueError, match="too few for finetune.validation"):
        few = replace(inputs_of(table, tmp_path), table=_few(inputs_of(table, tmp_path)))
        finetuned(few, module, recipe, tmp_path / "o")


def _few(inputs: TaskInputs) -> Any:
    return replace(inputs.table, rows=inputs.table.rows[:4])


def test_the_command_line(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["heads", "finetune", "classification", "target=label", *QUICK]
    where = ["--table", str(table), "--cache", str(tmp_path / "c"), "-o", str(tmp_path / "o")]
    options = ["--encoder", ENCODER, "--seed", "3", "--shape", "16", "16", "16", "-np", "0"]
    assert not main([*command, *where, *options])
    out = capsys.readouterr().out
    assert "16 cases of 16 subjects" in out
    assert "finetuned" in out
    assert "trivial" in out
    assert main([*command, *where, *options, "finetune.unfreeze=99"])
    assert "finetune.unfreeze=99; allowed: 0 to" in capsys.readouterr().err
