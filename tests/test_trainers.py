"""The trainers inside stock nnU-Net: found, trained, killed, continued, predicted with, exported."""

import importlib.util
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2 import paths
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from conftest import DATASET, Run
from nnunet_fm.files import replaced_atomically
from nnunet_fm.folders import EXT_TRAINER, folder
from nnunet_fm.network import FrozenEncoderNetwork
from nnunet_fm.optimisation import LinearDecay, Recipe, parameter_groups
from nnunet_fm.plan_request import PlanRequest
from nnunet_fm.planning import write_plans
from test_checkpoint import braindino, official

CONFIGURATION, PLANS, TRAINER = "2d_fm48", "FM_braindino", "FrozenDinoTrainerTest"


def catalogue() -> ModuleType:
    specification = importlib.util.spec_from_file_location("catalogue", folder("trainers") / "nnunet_fm_trainers.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


NAMES = sorted(n for n, c in vars(catalogue()).items() if inspect.isclass(c) and issubclass(c, nnUNetTrainer))


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights ü") / "braindino.pth"
    torch.save(braindino(official()), path)
    return path


@pytest.fixture(scope="session")
def planned(dataset: Path, encoder_file: Path, run: Run) -> Path:
    run("nnunet-fm", "plan", "-d", 7, "--encoder", encoder_file, "--patch", 48, "--batch-size", 2)
    run("nnunet-fm", "plan", "-d", 7, "--encoder", "none", "--train-ratio", 0.5)
    return dataset


@pytest.fixture(scope="session")
def trained(planned: Path, run: Run, nnunet: dict[str, str]) -> Path:
    """Stock training and validation, both fold 0: the model folder."""
    run("nnUNetv2_train", 7, CONFIGURATION, 0, "-tr", TRAINER, "-p", PLANS, "-device", "cpu")
    return Path(nnunet["nnUNet_results"]) / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"


def train_words(trainer: str, configuration: str = CONFIGURATION, plans: str = PLANS, fold: object = 0) -> list[object]:
    return ["nnUNetv2_train", 7, configuration, fold, "-tr", trainer, "-p", plans, "-device", "cpu"]


def log_of(model: Path, fold: int = 0) -> str:
    return "".join(p.read_text() for p in sorted((model / f"fold_{fold}").glob("training_log*")))


def test_nnunet_finds_every_trainer_in_a_fresh_process(nnunet: dict[str, str]) -> None:
    program = (
        "import sys; from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "for name in sys.argv[1:]: print('found', find(name).__name__)"
    )
    words = [sys.executable, "-W", "ignore", "-c", program, *NAMES]
    done = subprocess.run(words, env=os.environ | nnunet, capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("found")] == NAMES
    assert "FrozenDinoTrainer" in NAMES


def test_no_trainer_has_a_stock_name_or_overrides_what_nnunet_reads() -> None:
    stock = Path(inspect.getfile(nnUNetTrainer)).parent
    for name in NAMES:
        trainer = getattr(catalogue(), name)
        assert not any(f"class {name}(" in p.read_text() for p in stock.rglob("*.py"))
        assert trainer.__init__ is nnUNetTrainer.__init__
        assert trainer.build_network_architecture is nnUNetTrainer.build_network_architecture


def test_the_papers_recipe() -> None:
    recipe = catalogue().FrozenDinoTrainer.recipe
    assert (recipe.epochs, recipe.iterations, recipe.learning_rate, recipe.weight_decay) == (100, 250, 3e-4, 0.05)
    assert recipe.betas == (0.9, 0.98)
    assert recipe.encoder_learning_rate is None


@pytest.fixture
def in_process(planned: Path, nnunet: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Makes a trainer of the catalogue in this process."""

    def make(name: str) -> Any:
        for key in ("nnUNet_preprocessed", "nnUNet_results"):
            monkeypatch.setenv(key, nnunet[key])
        monkeypatch.setenv("nnUNet_n_proc_DA", "0")
        assert paths.nnUNet_results.is_set()
        plans_name = "FM_none_r050" if name.startswith("Subset") else PLANS
        configuration = "2d" if name.startswith("Subset") else CONFIGURATION
        if "25D" in name:
            asked = {
                "encoder": "dinov3_test16",
                "fov": "native",
                "patch": (4, 64, 64),
                "batch_size": 2,
                "mix_slices": 3,
            }
            written = write_plans(planned, PlanRequest(**asked, output="FM_mixing_step"))
            plans_name, configuration = written.identifier, written.configuration
        plans = json.loads((planned / f"{plans_name}.json").read_text()) | {"continue_training": False}
        description = json.loads((planned / "dataset.json").read_text())
        return getattr(catalogue(), name)(plans, configuration, 4, description, torch.device("cpu"))

    return make


@pytest.mark.parametrize("name", NAMES)
def test_every_trainer_takes_a_step(name: str, in_process: Callable[[str], Any]) -> None:
    """In this process: initialise, one training and one validation step, save, load."""
    trainer = in_process(name)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        assert np.isfinite(trainer.validation_step(next(trainer.dataloader_val))["loss"])
    filename = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.logger.log("mean_fg_dice", 0.5, 0)
    trainer.save_checkpoint(str(filename))
    keys = torch.load(filename, weights_only=False)["network_weights"].keys()
    if name.startswith("Frozen"):
        assert not any(k.startswith("encoder.") for k in keys)
        trainer.assert_encoder_unchanged()
    if name.startswith("FineTuned"):
        assert any(k.startswith("encoder.") for k in keys)
        assert all(p.grad is not None for p in trainer.network.parameters() if p.requires_grad)
        assert trainer.network.encoder.vit.cls_token.requires_grad
    trainer.load_checkpoint(str(filename))
    shutil.rmtree(trainer.output_folder)


def test_a_patch_that_cannot_fit_is_refused_with_one_that_can(
    in_process: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = in_process("FrozenDinoTrainerTest")
    trainer.initialize()
    trainer.bare_network.use_kernels(gradient_checkpointing=True)
    needed = trainer._kept_bytes((48, 48))
    monkeypatch.setattr("nnunet_fm.device.free_memory", lambda device: 9 * needed // 10)
    message = r"patch 48x48 in batches of \d+ keeps .* GiB are free. Nearest patch that fits: 32x32\."
    small = in_process("FrozenDinoTrainerTest")
    small.initialize()  # enough for validation, which takes a tile at a time
    with pytest.raises(ValueError, match=message):
        small.on_train_start()
    monkeypatch.setattr("nnunet_fm.device.free_memory", lambda device: None)  # the system does not say
    in_process("FrozenDinoTrainerTest").on_train_start()
    shutil.rmtree(trainer.output_folder)


def test_a_step_out_of_memory_names_a_patch_and_other_errors_pass(
    in_process: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = in_process("FrozenDinoTrainerTest")
    trainer.initialize()
    for error, expected in (
        (torch.OutOfMemoryError("CUDA out of memory"), MemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError),
        (RuntimeError("something else"), RuntimeError),
    ):
        monkeypatch.setattr(nnUNetTrainer, "train_step", Raise(error))
        with pytest.raises(expected, match="Nearest patch that fits: 32x32" if expected is MemoryError else "else"):
            trainer.train_step({})
    shutil.rmtree(trainer.output_folder)


class Raise:
    """A function that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *_: Any) -> None:
        raise self.error


def test_training_validates_and_says_what_it_does(trained: Path) -> None:
    log = log_of(trained)
    assert "encoder dinov3_test16.trained from" in log
    assert "the forward pass keeps " in log
    assert "gradient checkpointing on" not in log
    assert "Mean Validation Dice" in log
    assert re.search(r"[\d,]+ parameters, [\d,]+ learn", log)
    assert f"versions: nnunet-fm {version('nnunet-fm')}, nnunetv2 {version('nnunetv2')}" in log
    assert 50e6 < int(re.search(r"peak memory: (\d+) bytes \(process\)", log).group(1)) < 50e9
    summary = json.loads((trained / "fold_0" / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2
    assert sorted(p.name for p in (trained / "fold_0").glob("*.pth")) == ["checkpoint_best.pth", "checkpoint_final.pth"]


def test_final_checkpoint_is_complete_and_the_best_one_slim(trained: Path) -> None:
    contents = {
        p.name: torch.load(p, weights_only=False)["network_weights"] for p in (trained / "fold_0").glob("*.pth")
    }
    has_encoder = {name: any(k.startswith("encoder.") for k in c) for name, c in contents.items()}
    assert has_encoder == {"checkpoint_final.pth": True, "checkpoint_best.pth": False}


@pytest.fixture(scope="session")
def images(nnunet: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unlabelled case and one training case."""
    target = tmp_path_factory.mktemp("in put")
    raw = Path(nnunet["nnUNet_raw"]) / DATASET
    for source in [*raw.glob("imagesTs/*"), *raw.glob("imagesTr/*00000_000?*")]:
        shutil.copyfile(source, target / source.name)
    return target


def predict_words(images: Path, out: Path, *more: object) -> list[object]:
    common = ["-i", images, "-o", out, "-npp", 1, "-nps", 1, "-device", "cpu", "--disable_progress_bar"]
    return [*common, *more]


def stock_words() -> list[object]:
    return ["-d", 7, "-c", CONFIGURATION, "-tr", TRAINER, "-p", PLANS, "-f", 0]


def labels_in(out: Path) -> dict[str, np.ndarray]:
    return {p.name: sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in sorted(out.glob("*.nii.gz"))}


@pytest.fixture(scope="session")
def stock_prediction(trained: Path, images: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stock")
    run("nnUNetv2_predict", *predict_words(images, out, *stock_words(), "--save_probabilities"))
    return out


def test_our_prediction_equals_the_stock_one(stock_prediction: Path, images: Path, run: Run, tmp_path: Path) -> None:
    words = predict_words(images, tmp_path, *stock_words(), "--save_probabilities", "--precision", "float32")
    said = run("nnunet-fm", "predict", *words).stdout
    assert "precision float32 (asked for)" in said
    stock, ours = labels_in(stock_prediction), labels_in(tmp_path)
    assert list(stock) == list(ours)
    assert len(ours) == 2
    for name in stock:
        assert (stock[name] == ours[name]).mean() > 0.999  # stock sums in half precision
        case = name.removesuffix(".nii.gz")
        p, q = (np.load(folder / f"{case}.npz")["probabilities"] for folder in (stock_prediction, tmp_path))
        assert np.abs(p - q).max() < 2e-3


def test_the_best_checkpoint_predicts_with_its_encoder_file(
    trained: Path, images: Path, run: Run, tmp_path: Path, encoder_file: Path
) -> None:
    best = predict_words(images, tmp_path / "best", *stock_words(), "-chk", "checkpoint_best.pth")
    run("nnUNetv2_predict", *best)
    assert len(labels_in(tmp_path / "best")) == 2
    encoder_file.rename(encoder_file.with_suffix(".moved"))
    try:
        said = run("nnUNetv2_predict", *best, expect=1).stdout
        assert "has gone" in said
        final = predict_words(images, tmp_path / "final", *stock_words())
        run("nnUNetv2_predict", *final)  # the final checkpoint needs no encoder file
    finally:
        encoder_file.with_suffix(".moved").rename(encoder_file)


def test_exported_models_predict_without_the_variable(
    trained: Path, stock_prediction: Path, images: Path, run: Run, tmp_path: Path, encoder_file: Path
) -> None:
    out = tmp_path / "exported"
    run("nnunet-fm", "export", trained, out)
    assert str(encoder_file.parent) not in (out / "plans.json").read_text()
    content = torch.load(out / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert (content["trainer_name"], content["trained_with"]) == ("nnUNetTrainer", TRAINER)
    words = predict_words(images, tmp_path / "p", "-m", out, "-f", 0)
    run("nnUNetv2_predict_from_modelfolder", *words, **{EXT_TRAINER: ""})
    ours = labels_in(tmp_path / "p")
    assert all((ours[n] == stock).all() for n, stock in labels_in(stock_prediction).items())
    run("nnunet-fm", "predict", *predict_words(images, tmp_path / "q", "-m", out, "-f", 0))
    assert "not empty" in run("nnunet-fm", "export", trained, out, expect=2).stdout
    run("nnunet-fm", "export", trained, tmp_path / "best", "-chk", "checkpoint_best.pth")  # slim: completed
    best = torch.load(tmp_path / "best" / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert all(torch.equal(best[k], v) for k, v in content["network_weights"].items() if k.startswith("encoder."))
    assert "no trained model folder" in run("nnunet-fm", "export", tmp_path, tmp_path / "x", expect=2).stdout


def test_a_killed_training_continues(planned: Path, nnunet: dict[str, str], run: Run) -> None:
    """Kill -9 in the second epoch, continue with --c, finish; fold 1."""
    words = [str(Path(sys.executable).parent / "nnUNetv2_train"), *(str(w) for w in train_words(TRAINER, fold=1)[1:])]
    model = Path(nnunet["nnUNet_results"]) / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    latest = model / "fold_1" / "checkpoint_latest.pth"
    process = subprocess.Popen(
        words, env=os.environ | nnunet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not latest.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert latest.exists()
    assert not (model / "fold_1" / "checkpoint_final.pth").exists()
    said = run(*train_words(TRAINER, fold=1), "--c").stdout
    assert "Epoch 1" in said
    assert "Epoch 0" not in said
    assert (model / "fold_1" / "checkpoint_final.pth").exists()


def test_continuing_nothing_is_an_error(planned: Path, run: Run, nnunet: dict[str, str]) -> None:
    for words in (train_words(TRAINER, fold=2), train_words("SubsetTrainerTest", "2d", "FM_none_r050", 2)):
        said = run(*words, "--c", expect=1).stdout
        assert "holds no checkpoint to continue from" in said
    assert not list(Path(nnunet["nnUNet_results"]).rglob("fold_2/*.pth"))


def test_a_finished_run_is_validated_without_its_encoder_file(trained: Path, run: Run, encoder_file: Path) -> None:
    encoder_file.rename(encoder_file.with_suffix(".moved"))
    try:
        assert "Mean Validation Dice" in run(*train_words(TRAINER), "--val").stdout
        assert "has gone" in run(*train_words(TRAINER, fold=3), expect=1).stdout
    finally:
        encoder_file.with_suffix(".moved").rename(encoder_file)


def test_a_changed_encoder_file_is_noticed(trained: Path, run: Run, encoder_file: Path) -> None:
    original = encoder_file.read_bytes()
    changed = official()
    changed["norm.weight"] = changed["norm.weight"] * 1.01
    torch.save(braindino(changed), encoder_file)
    try:
        said = run(*train_words(TRAINER), "--c", expect=1).stdout
        assert "the encoder changed" in said
        assert "nnunet-fm plan" in said
    finally:
        encoder_file.write_bytes(original)


@pytest.mark.parametrize(
    ("words", "different"),
    [
        (["--encoder", "dinov3_test16"], "encoder"),
        (["--encoder", "FILE", "--taps", "0,1,2"], "network"),
        (["--encoder", "FILE", "--train-ratio", 0.5], "train_subset"),
    ],
)
def test_plans_rewritten_for_another_run_are_noticed(
    words: list, different: str, trained: Path, planned: Path, run: Run, encoder_file: Path
) -> None:
    plans_file = planned / f"{PLANS}.json"
    original = plans_file.read_text()
    words = [encoder_file if w == "FILE" else w for w in words]
    run("nnunet-fm", "plan", "-d", 7, *words, "--patch", 48, "--batch-size", 2, "-o", f"FM_{different}")
    swapped = json.loads((planned / f"FM_{different}.json").read_text()) | {"plans_name": PLANS}
    plans_file.write_text(json.dumps(swapped))
    try:
        said = run(*train_words(TRAINER), "--c", expect=1).stdout
        assert "was trained with other plans" in said
        assert f"different: {different}" in said
    finally:
        plans_file.write_text(original)


def test_stock_configurations_are_refused_by_frozen_trainers(planned: Path, run: Run) -> None:
    said = run(*train_words(TRAINER, "2d", "nnUNetPlans", 3), expect=1).stdout
    assert "needs a configuration written by `nnunet-fm plan`" in said


def test_subsets_cut_the_training_side_only(planned: Path, run: Run, nnunet: dict[str, str]) -> None:
    run(*train_words("SubsetTrainerTest", "2d", "FM_none_r050"))
    model = Path(nnunet["nnUNet_results"]) / DATASET / "SubsetTrainerTest__FM_none_r050__2d"
    log = log_of(model)
    assert "2 of 4 training cases" in log
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2


def test_a_full_disk_spares_the_previous_checkpoint(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint_latest.pth"
    target.write_text("previous")
    with pytest.raises(OSError, match=r"the previous checkpoint_latest\.pth is intact.*--c"):  # noqa: SIM117
        with replaced_atomically(str(target), "continue with --c") as temporary:
            Path(temporary).write_text("half")
            raise OSError(28, "No space left on device")
    assert target.read_text() == "previous"
    assert list(tmp_path.iterdir()) == [target]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="CUDA error"):  # noqa: SIM117
        with replaced_atomically(str(tmp_path / "c.pth")):
            raise RuntimeError("CUDA error: out of memory")


def test_a_really_full_disk(tmp_path: Path) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    with pytest.raises(OSError, match="there was none before"):  # noqa: SIM117
        with replaced_atomically(str(tmp_path / "c.pth")) as temporary:
            os.symlink("/dev/full", temporary)
            torch.save({"w": torch.ones(10_000)}, temporary)
    assert not list(tmp_path.iterdir())


def test_what_learns_and_how_fast() -> None:
    network = FrozenEncoderNetwork(4, 3, "dinov3_test16")
    groups = parameter_groups(network, Recipe())
    assert [g["weight_decay"] for g in groups] == [0.05, 0.0]
    assert any(p is network.fusion.weight for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in network.parameters())
    network.unfreeze()
    recipe = Recipe(encoder_learning_rate=3e-5, layer_decay=0.5)
    groups = parameter_groups(network, recipe)
    learns = [p for p in network.parameters() if p.requires_grad]
    assert sum(len(g["params"]) for g in groups) == len(learns) == len(list(network.parameters())) - 1
    assert not network.encoder.mask_token.requires_grad  # used in pretraining only
    assert sorted({g["lr"] for g in groups}) == pytest.approx(sorted([3e-4, *(3e-5 * 0.5**i for i in range(6))]))
    optimizer = torch.optim.AdamW(groups)
    schedule = LinearDecay(optimizer, 100)
    schedule.step(25)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.75 * 3e-4)


def test_learnable_then_fixed_switches_in_training(planned: Path, run: Run, nnunet: dict[str, str]) -> None:
    run(
        *("nnunet-fm", "plan", "-d", 7, "--encoder", "dinov3_test16", "--patch", 48, "--batch-size", 2),
        *("--fusion", "learnable_then_fixed(1)", "-o", "FM_switch", "--decoder", "light"),
    )
    run(*train_words(TRAINER, plans="FM_switch"))
    log = log_of(Path(nnunet["nnUNet_results"]) / DATASET / f"{TRAINER}__FM_switch__{CONFIGURATION}")
    assert log.index("Epoch 0") < log.index("fusion is fixed from here on") < log.index("Epoch 1")
