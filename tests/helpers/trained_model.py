"""A folder as nnU-Net leaves it after a training, written without one, and its predictions."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nnunet_fm.encoders import EncoderSource
from nnunet_fm.network import FrozenEncoderNetwork
from nnunet_fm.nnunet.predictor import BatchedPredictor
from nnunet_fm.nnunet.run_record import RunRecord, write_record

CASE = "patient_0815"  # in the files of a training, but in no file that is published
CONFIGURATION = "2d_fm64"
TRAINER = "nnUNetTrainer_5epochs"
LABELS = {"background": 0, "whole tumor": [1, 2], "core": [2]}
DICE = {0: (0.5, 0.7), 1: (0.9,)}  # of the first region, by fold and case
STOCK = {
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": "torch.nn.modules.conv.Conv2d",
    "kernel_sizes": [[3, 3]] * 2,
    "strides": [[1, 1], [2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


def weight_file(folder: Path, licence: str = "CC BY-NC 4.0") -> Path:
    """Write a weight file of `dinov3_test16` that states a licence."""
    file = folder / "my encoder.safetensors"
    state = EncoderSource.resolve("dinov3_test16", seed=5).load().state_dict()
    about = {"card": "dinov3_test16", "architecture": "dinov3_test16", "licence": licence}
    about |= {"datasets": "ADNI, Small", "subjects": 12}
    save_file(state, file, {"nnunet_fm_card": json.dumps(about)})
    return file


def make_model(folder: Path, encoder: str | None, change: float = 0.0) -> Path:
    """Write a model of two folds.

    Args:
        folder: to write.
        encoder: as `EncoderSource.resolve` takes it; None for stock nnU-Net.
        change: added to every tensor of the encoder, as by a fine-tuning.
    """
    kwargs = EncoderSource.resolve(encoder).to_plans() | {"decoder": "light"} if encoder else STOCK
    stock = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    name = "nnunet_fm.network.FrozenEncoderNetwork" if encoder else stock
    plans = _plans(name, kwargs, [v for v in kwargs if v.endswith(("_op", "nonlin"))])
    dataset = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": LABELS,
        "regions_class_order": [1, 2],
        "numTraining": 3,
        "file_ending": ".nii.gz",
        "training": [f"imagesTr/{CASE}.nii.gz"],
    }
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for fold in DICE:
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": _weights(fold, encoder, kwargs, change),
            "init_args": {"plans": plans, "configuration": CONFIGURATION, "fold": fold},
            "trainer_name": TRAINER,
            "inference_allowed_mirroring_axes": (0, 1),
            "current_epoch": 2,
            "optimizer_state": {"state": torch.ones(3)},
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
        _write_validation(folder / f"fold_{fold}", fold)
    return folder


def _plans(name: str, kwargs: dict[str, Any], imported: list[str]) -> dict[str, Any]:
    architecture = {"network_class_name": name, "arch_kwargs": kwargs}
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "batch_size": 2,
        "patch_size": [64, 64],
        "spacing": [1.0, 1.5],
        "architecture": architecture | {"_kw_requires_import": imported},
    }
    return {
        "plans_name": "FM_x",
        "dataset_name": "Dataset007_Small",
        "label_manager": "LabelManager",
        "configurations": {CONFIGURATION: configuration},
    }


def _weights(
    fold: int, encoder: str | None, kwargs: dict[str, Any], change: float
) -> dict[str, Tensor]:
    """Draw the weights of a fold around the encoder's."""
    torch.manual_seed(fold)
    if encoder is None:
        return _stock_network().state_dict()
    network = FrozenEncoderNetwork(2, 2, **kwargs)
    for parameter in network.decoder.parameters():
        nn.init.normal_(parameter, std=0.1)
    network.load_encoder()
    if change:
        for parameter in network.encoder.parameters():
            parameter.data += change
    return network.state_dict()


def _stock_network() -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    kinds = {"conv_op": nn.Conv2d, "norm_op": nn.InstanceNorm2d, "nonlin": nn.LeakyReLU}
    return PlainConvUNet(input_channels=2, num_classes=2, **(STOCK | kinds))


def _write_validation(folder: Path, fold: int) -> None:
    (folder / "validation").mkdir()
    empty = {"Dice": float("nan"), "IoU": float("nan")}
    cases = [
        {"metrics": {"(1, 2)": {"Dice": d, "IoU": d / 2}, "(2,)": empty}, "prediction_file": CASE}
        for d in DICE[fold]
    ]
    (folder / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
    record = RunRecord(
        versions=({"nnunet-fm": "0.2"},),
        encoder=f"dinov3_test16 from {folder}",
        epoch_seconds=(1.0, 1.0),
        train_labels={CASE: "ab"},
        orientations=("LPS",),
        validated="checkpoint_final.pth",
    )
    write_record(record, folder)


def predicted(model: Path) -> Tensor:
    """Predict a small case with both folds: logits (region, z, y, x)."""
    predictor = BatchedPredictor(
        device=torch.device("cpu"), allow_tqdm=False, precision="float32", verbose=False
    )
    predictor.initialize_from_trained_model_folder(str(model), (0, 1))
    data = torch.randn(2, 2, 64, 64, generator=torch.Generator().manual_seed(1))
    return predictor.predict_logits_from_preprocessed_data(data)
