"""Dotted names that plans and users' trainers hold stay valid for good."""

import importlib
from pydoc import locate

import pytest

from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.network.slice_stack import FrozenEncoder25DNetwork
from nnunet_fm.nnunet.checkpoint_mixins import StrictResumeMixin
from nnunet_fm.nnunet.recipe import Recipe
from nnunet_fm.nnunet.record_mixin import RecordRunMixin
from nnunet_fm.nnunet.subset_mixin import SubsetMixin
from nnunet_fm.nnunet.subset_trainer import SubsetTrainer
from nnunet_fm.nnunet.trainer import FrozenEncoder25DTrainer, FrozenEncoderTrainer

# network_class_name of every configuration that was ever written
NETWORKS_IN_PLANS = {
    "nnunet_fm.network.FrozenEncoderNetwork": FrozenEncoderNetwork,
    "nnunet_fm.network25d.FrozenEncoder25DNetwork": FrozenEncoder25DNetwork,
}
# what trainers of users import
ALIASES = {
    "nnunet_fm.trainer.FrozenEncoderTrainer": FrozenEncoderTrainer,
    "nnunet_fm.trainer.FrozenEncoder25DTrainer": FrozenEncoder25DTrainer,
    "nnunet_fm.trainer.SubsetTrainer": SubsetTrainer,
    "nnunet_fm.trainer.SubsetMixin": SubsetMixin,
    "nnunet_fm.trainer.MeasuredMixin": RecordRunMixin,
    "nnunet_fm.trainer.SafeContinueMixin": StrictResumeMixin,
    "nnunet_fm.optimisation.Recipe": Recipe,
}
STABLE = (
    "nnunet_fm.encoders.build_encoder",
    "nnunet_fm.encoders.load_encoder",
    "nnunet_fm.encoders.register_architecture",
    "nnunet_fm.encoders.Encoder",
    "nnunet_fm.encoders.slicewise.SliceWise",
    "nnunet_fm.features.FeatureCache",
)


@pytest.mark.parametrize("name", NETWORKS_IN_PLANS)
def test_networks_named_in_plans_are_found_as_nnunet_finds_them(name: str) -> None:
    assert locate(name) is NETWORKS_IN_PLANS[name]


@pytest.mark.parametrize("name", ALIASES)
def test_aliases_give_the_classes(name: str) -> None:
    module, attribute = name.rsplit(".", 1)
    assert getattr(importlib.import_module(module), attribute) is ALIASES[name]


@pytest.mark.parametrize("name", STABLE)
def test_documented_names_are_found(name: str) -> None:
    assert locate(name) is not None
