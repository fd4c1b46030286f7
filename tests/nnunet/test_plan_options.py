"""Options of the planner stand in one place: flags, entries of a sweep and requests agree."""

import argparse
from typing import get_args

import pytest

from nnunet_fm.experiments.config import EncoderEntry
from nnunet_fm.internal.arguments import add_model_arguments, model_from_arguments
from nnunet_fm.nnunet.plan_options import ConfigurationOptions, PlanOptions
from nnunet_fm.nnunet.train_subset import SubsetRule, TrainSubset

FLAGS_OF_0_1 = [
    "-c",
    "--encoder",
    "--card",
    "--preset",
    "--patch",
    "--fov",
    "--taps",
    "--fusion",
    "--decoder",
    "--intensity",
    "--mix-slices",
    "--batch-size",
    "--option",
    "--seed",
    "--train-ratio",
    "--subset-seed",
    "--subset-rule",
    "-p",
    "-o",
]
NEW_FLAGS = {
    "--channels",
    "--encoder-scale",
    "--encoder-option",
    "--decoder-option",
    "--detail-width",
    "--tokens",
    "--training-seed",
    "-device",
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_model_arguments(made, PlanOptions)
    return made


def test_the_flags_of_version_0_1_are_accepted() -> None:
    known = {name for action in parser()._actions for name in action.option_strings}
    assert known - {"-h", "--help"} - NEW_FLAGS == set(FLAGS_OF_0_1)


def test_every_option_has_help() -> None:
    assert all(field.description for field in PlanOptions.model_fields.values())


def test_flags_give_the_options() -> None:
    typed = (
        "-c 3d_fullres --encoder mine --card k --preset p --patch 4 64 64 --fov fit --taps 2,5 "
        "--fusion fixed --decoder light --intensity stock --mix-slices 3 --batch-size 2 "
        "--encoder-option a=1 --option b=x --seed 4 --train-ratio 0.5 --subset-seed 7 "
        "--subset-rule nested -p mine -o FM_x --channels 0,2,2 --encoder-scale 2"
    )
    options = model_from_arguments(PlanOptions, parser().parse_args(typed.split()))
    assert options == PlanOptions(
        configuration="3d_fullres",
        encoder="mine",
        card="k",
        preset="p",
        patch=(4, 64, 64),
        fov="fit",
        taps=(2, 5),
        fusion="fixed",
        decoder="light",
        intensity="stock",
        mix_slices=3,
        batch_size=2,
        encoder_options={"a": 1, "b": "x"},
        seed=4,
        train_ratio=0.5,
        subset_seed=7,
        source_plans="mine",
        output="FM_x",
        channels=(0, 2, 2),
        encoder_scale=2,
    )
    assert options.subset == TrainSubset(0.5, 7)
    assert model_from_arguments(PlanOptions, parser().parse_args(["--encoder", "none"])) == (
        PlanOptions()
    )


def test_an_entry_of_a_sweep_has_the_same_keys_and_a_trainer() -> None:
    assert set(EncoderEntry.model_fields) == set(ConfigurationOptions.model_fields) | {"trainer"}
    entry = EncoderEntry.model_validate({"options": {"a": 1}})  # as 0.1 wrote it
    assert entry.encoder_options == {"a": 1}


def test_the_rules_of_the_flag_are_those_of_the_subset() -> None:
    action = next(a for a in parser()._actions if a.dest == "subset_rule")
    assert tuple(action.choices or ()) == get_args(SubsetRule)
    with pytest.raises(ValueError, match="train_ratio"):
        _ = PlanOptions(train_ratio=2).subset
