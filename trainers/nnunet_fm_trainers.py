"""The catalogue of `-tr` names in the folder that nnU-Net scans; behaviour is in nnunet_fm/nnunet/.

To add a variant, write a class like these in a folder of your own and add the folder to
`nnUNet_extTrainer`.
"""

from dataclasses import replace

from nnunet_fm.nnunet import subset_trainer, trainer
from nnunet_fm.nnunet.recipe import Recipe


class FrozenDinoTrainer(trainer.FrozenEncoderTrainer):
    """The paper's schedule: 100 epochs of 250 iterations, AdamW 3e-4, frozen encoder."""

    recipe = Recipe()


class FrozenDinoTrainer_20epochs(trainer.FrozenEncoderTrainer):  # noqa: N801 (as nnU-Net names them)
    """A fifth of the paper's schedule."""

    recipe = Recipe(epochs=20)


class FrozenDinoTrainer_1epoch(trainer.FrozenEncoderTrainer):  # noqa: N801
    """One epoch, to check that everything fits."""

    recipe = Recipe(epochs=1)


class FrozenDinoTrainerDemo(trainer.FrozenEncoderTrainer):
    """12 epochs of 40 iterations: minutes on two CPU cores with a small encoder."""

    recipe = Recipe(epochs=12, iterations=40, validation_iterations=8, learning_rate=1e-3)


class FrozenDinoTrainerTest(trainer.FrozenEncoderTrainer):
    """Two epochs of two iterations, for tests."""

    recipe = Recipe(epochs=2, iterations=2, validation_iterations=1)


class FineTunedDinoTrainer(trainer.FrozenEncoderTrainer):
    """Ablation: trains the encoder at a tenth of the decoder's rate, as the released code does."""

    recipe = Recipe(encoder_learning_rate=3e-5)


class FineTunedDinoTrainer_layerwise(trainer.FrozenEncoderTrainer):  # noqa: N801
    """Ablation: the encoder's rate falls by a quarter per block towards the input, as in BEiT."""

    recipe = Recipe(encoder_learning_rate=3e-4, layer_decay=0.75)


class FineTunedDinoTrainerTest(trainer.FrozenEncoderTrainer):
    """Fine-tuning in two epochs of two iterations, for tests."""

    recipe = replace(FrozenDinoTrainerTest.recipe, encoder_learning_rate=3e-5, layer_decay=0.9)


class FrozenDinoTrainer25D(trainer.FrozenEncoder25DTrainer):
    """The paper's schedule around the 2.5-D network: mixes adjacent slices."""

    recipe = Recipe()


class FrozenDinoTrainer25DDemo(trainer.FrozenEncoder25DTrainer):
    """The 2.5-D network at the demo's length."""

    recipe = FrozenDinoTrainerDemo.recipe


class FrozenDinoTrainer25DTest(trainer.FrozenEncoder25DTrainer):
    """Two epochs of two iterations, for tests."""

    recipe = FrozenDinoTrainerTest.recipe


class FrozenVolumeTrainer(trainer.FrozenEncoderTrainer):
    """`FrozenDinoTrainer` under the name for 3-D encoders."""

    recipe = Recipe()


class FrozenVolumeTrainerDemo(trainer.FrozenEncoderTrainer):
    """The demo's length for 3-D encoders."""

    recipe = FrozenDinoTrainerDemo.recipe


class FrozenVolumeTrainerTest(trainer.FrozenEncoderTrainer):
    """Two epochs of two iterations, for tests."""

    recipe = FrozenDinoTrainerTest.recipe


class FineTunedVolumeTrainer(trainer.FrozenEncoderTrainer):
    """Ablation: trains the 3-D encoder at a tenth of the decoder's rate."""

    recipe = FineTunedDinoTrainer.recipe


class SubsetTrainer(subset_trainer.SubsetTrainer):
    """Stock nnU-Net on the plans' subset of the training cases."""


class SubsetTrainerDemo(subset_trainer.SubsetTrainer):
    """Stock nnU-Net at the demo's length."""

    schedule = (12, 40, 8)


class SubsetTrainerTest(subset_trainer.SubsetTrainer):
    """Stock nnU-Net in two epochs of two iterations, for tests."""

    schedule = (2, 2, 1)
