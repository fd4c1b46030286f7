"""Sweeps are strict, and the shipped ones are valid."""

from pathlib import Path

import pytest

from nnunet_fm.data.label_schemes import SCHEMES
from nnunet_fm.encoders import build_encoder, get_card
from nnunet_fm.experiments.config import Sweep, read_sweep
from nnunet_fm.experiments.datasets import Splits
from nnunet_fm.nnunet.commands import trainer_names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [7]", "encoders: Field required"),
        (
            "{datasets: [7], encoders: {a: {}}, ratio: [1]}",
            "unknown key 'ratio'. Did you mean ratios",
        ),
        ("{datasets: [7], encoders: {a: {encodr: x}}}", "unknown key 'encoders.a.encodr'"),
        (
            "{datasets: [7], encoders: {a b: {}}}",
            "encoder name 'a b'; allowed: letters, digits and _",
        ),
        ("{datasets: [7, 7], encoders: {a: {}}}", "datasets names a value twice"),
        ("{datasets: [7], encoders: {a: {}}, ratios: [0.1, 0.1]}", "two runs would be one"),
        (
            "{datasets: [7], encoders: {a: {}}, ratios: [0]}",
            "ratios.0: Input should be greater than 0",
        ),
        ("{datasets: [7], encoders: {a: {}}, training_seeds: [1, 1]}", "two runs would be one"),
        ("{datasets: [7], encoders: {a: {}}, training_seeds: [-1]}", "training_seeds.0: .* equal"),
        ("{datasets: [7], encoders: {a: {}}, training_seeds: 1}", "training_seeds: "),
        ("{datasets: [7], encoders: {a: {}}, gpus: [0], device: cpu}", "gpus .0. with device cpu"),
        ("[1]", "holds a list; allowed: a sweep"),
        ("{datasets: [7], encoders: {a: null}}", "encoders is empty; allowed: at least one value"),
        ("{datasets: [7], encoders: {a: {}}, splits: {file: x, seed: 1}}", "allowed: one of them"),
        ("{datasets: [7, 8], encoders: {a: {}}, splits: {file: x}}", "splits.file with 2 datasets"),
    ],
)
def test_sweeps_are_strict(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_sweep(tmp_path / "s.yaml")


def test_single_keys_can_be_typed(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("{datasets: [7], encoders: {a: {}}}")
    assert (
        read_sweep(tmp_path / "s.yaml", ["ratios=[0.1,1.0]", "encoders.a.trainer=X"])
        .encoders["a"]
        .trainer
        == "X"
    )
    (tmp_path / "s.yaml").write_text("{datasets: [7], encoders: {a: {encoder_options: {b: 1}}}}")
    with pytest.raises(ValueError, match="encoder_options and options are two names of one key"):
        read_sweep(tmp_path / "s.yaml", ["encoders.a.options={c: 2}"])
    with pytest.raises(FileNotFoundError, match="unknown sweep"):
        read_sweep(tmp_path / "t.yaml")


@pytest.mark.parametrize("name", ["brats2021", "brats2023_men", "brats2023_mets", "brats2024_goat"])
def test_every_shipped_sweep_is_read_and_its_encoders_are_known(name: str) -> None:
    sweep = read_sweep(name)
    assert len(sweep.encoders) * len(sweep.ratios) == 36
    (expected,) = sweep.expected.values()
    assert set(SCHEMES[expected.scheme or ""].dataset_labels()) == {
        "background",
        "whole tumor",
        "tumor core",
        "enhancing tumor",
    }
    assert sweep.splits == Splits()  # nnU-Net's own
    assert len(read_sweep(name, ["encoders.dinov3=null"]).encoders) == 5
    (dataset,) = sweep.datasets
    for words in (f"expected.{dataset}=null", "expected=null"):
        assert read_sweep(name, [words]).expected == {}
    assert read_sweep(name, [f"expected.{dataset}.cases=2"]).expected[dataset].cases == 2
    assert build_encoder(sweep.encoders["random"].encoder).input_spec.spatial_dims == 2
    dinov3 = get_card(sweep.encoders["dinov3"].card or "")
    assert (
        build_encoder(dinov3.architecture, **dinov3.options).vit.num_prefix_tokens == 5
    )  # CLS and four registers
    assert {arm.trainer for arm in sweep.encoders.values()} - {None} <= trainer_names()


def test_the_arms_of_a_decoder_differ_in_their_features_alone() -> None:
    arms = read_sweep("decoder_arms", ["datasets=[7]"]).encoders
    assert {name: (arm.decoder, arm.tokens) for name, arm in arms.items()} == {
        "stock_2d": (None, None),
        "primus": ("primus", None),
        "tokens": (None, None),
        "tokens_off": (None, "off"),
        "random": (None, None),
    }


@pytest.mark.parametrize("word", ["off", '"off"', "false"])
def test_yaml_reads_off_as_false_and_is_understood(word: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"{{datasets: [7], encoders: {{a: {{tokens: {word}}}}}}}")
    assert read_sweep(tmp_path / "s.yaml").encoders["a"].tokens == "off"
    sweep = read_sweep(tmp_path / "s.yaml", ["encoders.a.tokens=on"])
    assert sweep.encoders["a"].tokens == "on"


def test_each_gpu_gets_a_run_unless_told_otherwise() -> None:
    words = {"datasets": [7], "encoders": {"a": {}}, "gpus": [3, 5]}
    assert Sweep.model_validate(words).max_parallel == 2
    assert Sweep.model_validate(words | {"max_parallel": 1}).max_parallel == 1
