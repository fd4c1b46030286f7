"""Run every 3-D encoder on two real cases: plan, train for one step, predict the other case.

The weight files hold random weights, in the key formats and under the names that their authors
publish. The dataset can be any nnU-Net dataset with two or more training cases and channels called
T1, T1c, T2, FLAIR, planned with `-c 3d_fullres`.

python real_volumes.py 21 -o WEIGHTS                       # all, a JSON line and a process each
python real_volumes.py 21 -o WEIGHTS --encoder brainmvp    # one
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
SIDE = 128


def below(
    prefix: str, container: str = "", ours: str = "", beside: State | None = None
) -> Callable[[State], Any]:
    """Wrap our tensors (names without `ours`) with a prefix, a container and other tensors."""

    def wrap(state: State) -> Any:
        content = {f"{prefix}{k.removeprefix(ours)}": v for k, v in state.items()} | (beside or {})
        return {container: content} if container else content

    return wrap


def swin(prefix: str) -> Callable[[State], Any]:
    """MONAI's pretraining: other names for the two layers of an MLP."""
    inner = below(
        prefix,
        "state_dict",
        "swin.",
        {f"{prefix.split('swinViT')[0]}rotation_head.bias": torch.zeros(4)},
    )
    return lambda state: inner({k.replace(".mlp.linear", ".mlp.fc"): v for k, v in state.items()})


def amaes(state: State) -> Any:
    """Rename to AMAES: `in_conv.conv1.conv` for `stages.0.0.convs.0.conv`, which we hold twice."""
    content = {}
    for key, value in state.items():
        match = re.fullmatch(r"body\.stages\.(\d)\.\d\.convs\.(\d)\.(conv|norm)\.(\w+)", key)
        if match:
            stage = "in_conv" if match[1] == "0" else f"encoder_conv{match[1]}"
            content[f"model.encoder.{stage}.conv{int(match[2]) + 1}.{match[3]}.{match[4]}"] = value
    return content


def volta(state: State) -> Any:
    """MONAI's ViTAutoEnc: the ViT and four tensors of its decoder."""
    rest = {
        f"conv3d_transpose{n}.{part}": torch.zeros(1)
        for n in ("", "_1")
        for part in ("weight", "bias")
    }
    return below("", "", "vit.", rest)(state)


MASK = {"decoder.mask_token": torch.zeros(1, 1, 512)}
TEMPLATE = {"module.rep_template": torch.zeros(8, 2, 2, 2)}
DECODER = {"decoder.seg_layers.0.weight": torch.zeros(1)}

# name: architecture, its options, file, content, words for the plan
ENCODERS: dict[str, tuple[str, dict[str, Any], str, Callable[[State], Any], dict[str, Any]]] = {
    "brainiac": (
        "brainiac_vitb16",
        {},
        "BrainIAC.ckpt",
        below("backbone.", "state_dict", "vit."),
        {},
    ),
    "volta3d": ("brainiac_vitb16", {}, "volta.pt", volta, {}),
    "bmmae": ("bmmae_vitb16", {}, "bmmae.pth", below("", "", "vit.", MASK), {}),
    "bmmae_fused": (
        "bmmae_vitb16",
        {},
        "bmmae.pth",
        below("", "", "vit.", MASK),
        {"options": {"tokens": "fused"}},
    ),
    "brainmvp": (
        "brainmvp_uniformer",
        {},
        "BrainMVP_uniformer.pt",
        below("module.encoder.", "state_dict", beside=TEMPLATE),
        {},
    ),
    "openmind_resencl": (
        "openmind_resencl",
        {},
        "ResEncL-OpenMind-MAE/checkpoint_final.pth",
        below("encoder.", "network_weights", "body.", DECODER),
        {},
    ),
    "openmind_primusm": (
        "openmind_primusm",
        {},
        "PrimusM-OpenMind-MAE/checkpoint_final.pth",
        below("", "network_weights"),
        {},
    ),
    "swin_unetr": (
        "swin_unetr48",
        {},
        "model_swinvit.pt",
        swin("module."),
        {"card": "swin_unetr48.ct5050"},
    ),
    "brainsegfounder": (
        "swin_unetr48",
        {"modalities": ["FLAIR", "T1c", "T1", "T2"]},
        "model_weights_BRATS-pretrain.pt",
        swin("module.swinViT."),
        {},
    ),
    "amaes_b": ("amaes_unetb", {}, "unet_b_lw_dec_fullaug.pth", amaes, {}),
    "amaes_xl": ("amaes_unetxl", {}, "unet_xl_lw_dec_fullaug.pth", amaes, {}),
}


def write_file(name: str, folder: Path) -> Path:
    """The authors' file, with random weights."""
    from nnunet_fm.encoders.registry import random_state

    architecture, options, file, wrap, _ = ENCODERS[name]
    path = folder / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(wrap(random_state(architecture, 0, **options)), path)
    return path


def measure(name: str, dataset: Path, folder: Path, side: int, batch: int) -> dict[str, Any]:
    """Plan, preprocess if the encoder needs its own intensities, train a step, predict a case."""
    from nnunet_fm.nnunet.datasets import dataset_id
    from nnunet_fm.nnunet.plan_options import PlanOptions
    from nnunet_fm.nnunet.planning import write_plans

    asked = {"patch": (side,), "batch_size": batch, "output": f"FM_real_{name}"} | ENCODERS[name][4]
    written = write_plans(
        dataset,
        PlanOptions(configuration="3d_fullres", encoder=str(write_file(name, folder)), **asked),
    )
    if not written.preprocessed:
        words = [
            "-d",
            str(dataset_id(dataset.name)),
            "-plans_name",
            written.identifier,
            "-c",
            written.configuration,
            "-np",
            "1",
        ]
        subprocess.run(
            [Path(sys.executable).parent / "nnUNetv2_preprocess", *words],
            check=True,
            capture_output=True,
        )
    trainer = make_trainer(dataset, written.identifier, written.configuration)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    seconds = []
    for _ in range(2):  # the first warms up
        given = next(trainer.dataloader_train)
        started = time.perf_counter()
        loss = trainer.train_step(given)["loss"]
        seconds.append(time.perf_counter() - started)
    found = {"step_s": round(seconds[1], 1), "loss": round(float(loss), 3), "train_gib": peak()}
    return found | predict(trainer) | learned(trainer.network)


def make_trainer(dataset: Path, plans: str, configuration: str) -> Any:
    """FrozenVolumeTrainer on the first fold, on the CPU."""
    import importlib.util

    from nnunet_fm.internal.folders import folder

    found = importlib.util.spec_from_file_location(
        "catalogue", folder("trainers") / "nnunet_fm_trainers.py"
    )
    catalogue = importlib.util.module_from_spec(found)  # type: ignore[arg-type]
    found.loader.exec_module(catalogue)  # type: ignore[union-attr]
    content = json.loads((dataset / f"{plans}.json").read_text()) | {"continue_training": False}
    description = json.loads((dataset / "dataset.json").read_text())
    return catalogue.FrozenVolumeTrainerTest(
        content, configuration, 0, description, torch.device("cpu")
    )


def predict(trainer: Any) -> dict[str, Any]:
    """The whole validation case, overlapping tiles, not mirrored."""
    from nnunet_fm.nnunet.predictor import BatchedPredictor

    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = BatchedPredictor(use_mirroring=False, device=trainer.device, allow_tqdm=False)
    parts = (trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json)
    predictor.manual_initialization(trainer.network, *parts, type(trainer).__name__, None)
    _, validation = trainer.get_tr_and_val_datasets()
    data = torch.from_numpy(validation.load_case(validation.identifiers[0])[0][:])
    started = time.perf_counter()
    logits = predictor.predict_sliding_window_return_logits(data)
    assert torch.isfinite(logits).all()
    shape = "x".join(map(str, logits.shape[1:]))
    return {"predict_s": round(time.perf_counter() - started, 1), "case": shape, "peak_gib": peak()}


def learned(network: Any) -> dict[str, Any]:
    """Parameters, in millions."""
    learns = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.encoder.parameters())
    return {"frozen_m": round(frozen / 1e6, 2), "learns_m": round(learns / 1e6, 2)}


def peak() -> float:
    """Most memory of this process so far, in GiB."""
    from nnunet_fm.internal.device import peak_memory

    return round(peak_memory(torch.device("cpu")) / 2**30, 2)


def main() -> None:
    """Measure each encoder in a process of its own and print a JSON line for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=int, help="nnU-Net's id")
    parser.add_argument(
        "-o", type=Path, required=True, metavar="FOLDER", help="for the files of weights"
    )
    parser.add_argument("--encoder", choices=tuple(ENCODERS), action="append", help="default: all")
    parser.add_argument("--side", type=int, default=SIDE, help="of the patch, in voxels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--here", action="store_true", help="one encoder, in this process")
    given = parser.parse_args()
    os.environ["nnUNet_n_proc_DA"] = "0"
    if given.here:
        root = Path(os.environ["nnUNet_preprocessed"])
        (dataset,) = root.glob(f"Dataset{given.dataset:03d}_*")
        print(json.dumps(measure(given.encoder[0], dataset, given.o, given.side, given.batch)))
        return
    for name in given.encoder or ENCODERS:
        words = [sys.executable, "-W", "ignore", *sys.argv, "--here", "--encoder", name]
        done = subprocess.run(words, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        last = lines[-1] if lines and lines[-1].startswith("{") else "{}"
        found = json.loads(last) or f"ended with {done.returncode}: {done.stderr[-400:]}"
        print(json.dumps({"encoder": name, "found": found}), flush=True)


if __name__ == "__main__":
    main()
