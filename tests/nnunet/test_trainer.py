"""The trainers inside stock nnU-Net: found, trained, killed, resumed, predicting, exported."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from helpers.encoder_files import braindino, official
from helpers.nnunet import CONFIGURATION, DATASET, PLANS, Run
from nnunet_fm.internal.files import replaced_atomically
from nnunet_fm.internal.folders import EXT_TRAINER
from nnunet_fm.nnunet.run_record import read_record
from nnunet_fm.nnunet.training_log import read_progress

TRAINER = "FrozenDinoTrainerTest"


@pytest.fixture(scope="session")
def trained(planned: Path, run: Run, nnunet: dict[str, str]) -> Path:
    """Stock training and validation, both fold 0: the model folder."""
    run("nnUNetv2_train", 7, CONFIGURATION, 0, "-tr", TRAINER, "-p", PLANS, "-device", "cpu")
    return Path(nnunet["nnUNet_results"]) / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"


def train_words(
    trainer: str, configuration: str = CONFIGURATION, plans: str = PLANS, fold: object = 0
) -> list[object]:
    return ["nnUNetv2_train", 7, configuration, fold, "-tr", trainer, "-p", plans, "-device", "cpu"]


def log_of(model: Path, fold: int = 0) -> str:
    return "".join(p.read_text() for p in sorted((model / f"fold_{fold}").glob("training_log*")))


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
    assert sorted(p.name for p in (trained / "fold_0").glob("*.pth")) == [
        "checkpoint_best.pth",
        "checkpoint_final.pth",
    ]


def test_what_a_training_was_made_with_is_recorded(trained: Path) -> None:
    record = read_record(trained / "fold_0")
    log = log_of(trained)
    assert f"{record.parameters:,} parameters, {record.learned_parameters:,} learn" in log
    assert f"peak memory: {record.peak_memory_bytes} bytes (process)" in log
    assert f"versions: {record.versions_text}" in log
    assert f"encoder {record.encoder}, tensor hash {record.encoder_sha256[:12]}" in log
    assert f"precision {record.precision} (" in log
    assert (record.device, record.gradient_checkpointing) == ("cpu", False)
    assert (record.epochs, record.epochs_done) == (2, 2)
    progress = read_progress(trained / "fold_0")
    assert record.total_seconds == pytest.approx(progress.seconds, abs=0.02)


def test_final_checkpoint_is_complete_and_the_best_one_slim(trained: Path) -> None:
    contents = {
        p.name: torch.load(p, weights_only=False)["network_weights"]
        for p in (trained / "fold_0").glob("*.pth")
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
    common = [
        "-i",
        images,
        "-o",
        out,
        "-npp",
        1,
        "-nps",
        1,
        "-device",
        "cpu",
        "--disable_progress_bar",
    ]
    return [*common, *more]


def stock_words() -> list[object]:
    return ["-d", 7, "-c", CONFIGURATION, "-tr", TRAINER, "-p", PLANS, "-f", 0]


def labels_in(out: Path) -> dict[str, np.ndarray]:
    return {
        p.name: sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in sorted(out.glob("*.nii.gz"))
    }


@pytest.fixture(scope="session")
def stock_prediction(
    trained: Path, images: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("stock")
    run("nnUNetv2_predict", *predict_words(images, out, *stock_words(), "--save_probabilities"))
    return out


def test_our_prediction_equals_the_stock_one(
    stock_prediction: Path, images: Path, run: Run, tmp_path: Path
) -> None:
    words = predict_words(
        images, tmp_path, *stock_words(), "--save_probabilities", "--precision", "float32"
    )
    said = run("nnunet-fm", "predict", *words).stdout
    assert "precision float32 (asked for)" in said
    stock, ours = labels_in(stock_prediction), labels_in(tmp_path)
    assert list(stock) == list(ours)
    assert len(ours) == 2
    for name in stock:
        assert (stock[name] == ours[name]).mean() > 0.999  # stock sums in half precision
        case = name.removesuffix(".nii.gz")
        p, q = (
            np.load(folder / f"{case}.npz")["probabilities"]
            for folder in (stock_prediction, tmp_path)
        )
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
        assert "is missing" in said
        final = predict_words(images, tmp_path / "final", *stock_words())
        run("nnUNetv2_predict", *final)  # the final checkpoint needs no encoder file
    finally:
        encoder_file.with_suffix(".moved").rename(encoder_file)


def test_exported_models_predict_without_the_variable(
    trained: Path,
    stock_prediction: Path,
    images: Path,
    run: Run,
    tmp_path: Path,
    encoder_file: Path,
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
    run(
        "nnunet-fm", "export", trained, tmp_path / "best", "-chk", "checkpoint_best.pth"
    )  # slim: completed
    best = torch.load(tmp_path / "best" / "fold_0" / "checkpoint_final.pth", weights_only=False)[
        "network_weights"
    ]
    assert all(
        torch.equal(best[k], v)
        for k, v in content["network_weights"].items()
        if k.startswith("encoder.")
    )
    assert (
        "not a trained model folder"
        in run("nnunet-fm", "export", tmp_path, tmp_path / "x", expect=2).stdout
    )


def test_a_killed_training_continues(planned: Path, nnunet: dict[str, str], run: Run) -> None:
    """Kill -9 in the second epoch, continue with --c, finish; fold 1."""
    words = [
        str(Path(sys.executable).parent / "nnUNetv2_train"),
        *(str(w) for w in train_words(TRAINER, fold=1)[1:]),
    ]
    model = Path(nnunet["nnUNet_results"]) / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    latest = model / "fold_1" / "checkpoint_latest.pth"
    process = subprocess.Popen(
        words,
        env=os.environ | nnunet,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        record = read_record(model / "fold_1")  # written after the checkpoint of the epoch
        if record is not None and record.epochs_done:
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert latest.exists()
    assert not (model / "fold_1" / "checkpoint_final.pth").exists()
    before = read_record(model / "fold_1")  # without the first epoch, if killed before it was added
    said = run(*train_words(TRAINER, fold=1), "--c").stdout
    after = read_record(model / "fold_1")
    assert after.epochs_done == 2
    assert after.epoch_seconds[: before.epochs_done] == before.epoch_seconds
    assert after.versions == before.versions
    assert "Epoch 1" in said
    assert "Epoch 0" not in said
    assert (model / "fold_1" / "checkpoint_final.pth").exists()


def test_continuing_nothing_is_an_error(planned: Path, run: Run, nnunet: dict[str, str]) -> None:
    for words in (
        train_words(TRAINER, fold=2),
        train_words("SubsetTrainerTest", "2d", "FM_none_r050", 2),
    ):
        said = run(*words, "--c", expect=1).stdout
        assert "holds no checkpoint to continue from" in said
    assert not list(Path(nnunet["nnUNet_results"]).rglob("fold_2/*.pth"))


def test_a_finished_run_is_validated_without_its_encoder_file(
    trained: Path, run: Run, encoder_file: Path
) -> None:
    encoder_file.rename(encoder_file.with_suffix(".moved"))
    try:
        assert "Mean Validation Dice" in run(*train_words(TRAINER), "--val").stdout
        assert "is missing" in run(*train_words(TRAINER, fold=3), expect=1).stdout
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
    run(
        "nnunet-fm",
        "plan",
        "-d",
        7,
        *words,
        "--patch",
        48,
        "--batch-size",
        2,
        "-o",
        f"FM_{different}",
    )
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


def test_subsets_cut_the_training_side_only(
    planned: Path, run: Run, nnunet: dict[str, str]
) -> None:
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


def test_learnable_then_fixed_switches_in_training(
    planned: Path, run: Run, nnunet: dict[str, str]
) -> None:
    run(
        *(
            "nnunet-fm",
            "plan",
            "-d",
            7,
            "--encoder",
            "dinov3_test16",
            "--patch",
            48,
            "--batch-size",
            2,
        ),
        *("--fusion", "learnable_then_fixed(1)", "-o", "FM_switch", "--decoder", "light"),
    )
    run(*train_words(TRAINER, plans="FM_switch"))
    log = log_of(
        Path(nnunet["nnUNet_results"]) / DATASET / f"{TRAINER}__FM_switch__{CONFIGURATION}"
    )
    assert log.index("Epoch 0") < log.index("fusion is fixed from here on") < log.index("Epoch 1")
