"""The catalogue of `-tr` names: nnU-Net scans this folder. Attributes only; behaviour lives in nnunet_fm/trainer.py.

Your own variant is a class like these in a folder of your own, added to `nnUNet_extTrainer`.
"""

from dataclasses import replace

from nnunet_fm.nnunet import subset_trainer, trainer
from nnunet_fm.nnunet.recipe import Recipe


class FrozenDinoTrainer(trainer.FrozenEncoderTrainer):
    """The paper's: 100 epochs of 250 iterations, AdamW 3e-4, linear decay, encoder frozen."""

    recipe = Recipe()


class FrozenDinoTrainer_20epochs(trainer.FrozenEncoderTrainer):  # noqa: N801 (nnU-Net's way of naming)
    """A fifth of the paper's schedule."""

    recipe = Recipe(epochs=20)


class FrozenDinoTrainer_1epoch(trainer.FrozenEncoderTrainer):  # noqa: N801
    """One epoch: to see whether everything fits."""

    recipe = Recipe(epochs=1)


class FrozenDinoTrainerDemo(trainer.FrozenEncoderTrainer):
    """Minutes on two CPU cores with a small encoder: 12 epochs of 40 iterations."""

    recipe = Recipe(epochs=12, iterations=40, validation_iterations=8, learning_rate=1e-3)


class FrozenDinoTrainerTest(trainer.FrozenEncoderTrainer):
    """Two epochs of two iterations, for tests."""

    recipe = Recipe(epochs=2, iterations=2, validation_iterations=1)


class FineTunedDinoTrainer(trainer.FrozenEncoderTrainer):
    """Ablation: the encoder learns too, at a tenth of the decoder's rate (the rates of the released code)."""

    recipe = Recipe(encoder_learning_rate=3e-5)


class FineTunedDinoTrainer_layerwise(trainer.FrozenEncoderTrainer):  # noqa: N801
    """Ablation: the encoder's rate falls by a quarter from each block to the one below it, as in BEiT's fine-tuning."""

    recipe = Recipe(encoder_learning_rate=3e-4, layer_decay=0.75)


class FineTunedDinoTrainerTest(trainer.FrozenEncoderTrainer):
    """Fine-tuning in two epochs of two iterations, for tests."""

    recipe = replace(FrozenDinoTrainerTest.recipe, encoder_learning_rate=3e-5, layer_decay=0.9)


class FrozenDinoTrainer25D(trainer.FrozenEncoder25DTrainer):
    """The paper's schedule around the 2.5-D network: slices that know their neighbours."""

    recipe = Recipe()


class FrozenDinoTrainer25DDemo(trainer.FrozenEncoder25DTrainer):
    """The demo's length."""

    recipe = FrozenDinoTrainerDemo.recipe


class FrozenDinoTrainer25DTest(trainer.FrozenEncoder25DTrainer):
    """Two epochs of two iterations, for tests."""

    recipe = FrozenDinoTrainerTest.recipe


class FrozenVolumeTrainer(trainer.FrozenEncoderTrainer):
    """The paper's schedule around a frozen 3-D encoder."""

    recipe = Recipe()


class FrozenVolumeTrainerTest(trainer.FrozenEncoderTrainer):
    """Two epochs of two iterations, for tests."""

    recipe = FrozenDinoTrainerTest.recipe


class FineTunedVolumeTrainer(trainer.FrozenEncoderTrainer):
    """Ablation: the 3-D encoder learns too, at a tenth of the decoder's rate."""

    recipe = FineTunedDinoTrainer.recipe


class SubsetTrainer(subset_trainer.SubsetTrainer):
    """Stock nnU-Net on the plans' subset of the training cases."""


class SubsetTrainerDemo(subset_trainer.SubsetTrainer):
    """Stock nnU-Net at the demo's length."""

    schedule = (12, 40, 8)


class SubsetTrainerTest(subset_trainer.SubsetTrainer):
    """Stock nnU-Net in two epochs of two iterations, for tests."""

    schedule = (2, 2, 1)
