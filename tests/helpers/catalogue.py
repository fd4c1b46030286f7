"""The catalogue of trainers that nnU-Net scans."""

import importlib.util
import inspect
from types import ModuleType

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_fm.internal.folders import folder


def catalogue() -> ModuleType:
    """Import the catalogue as nnU-Net does."""
    specification = importlib.util.spec_from_file_location(
        "catalogue", folder("trainers") / "nnunet_fm_trainers.py"
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


TRAINERS = sorted(
    n for n, c in vars(catalogue()).items() if inspect.isclass(c) and issubclass(c, nnUNetTrainer)
)
