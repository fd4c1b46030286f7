"""`nnunet-fm heads finetune`: tasks on volumes, with an encoder whose last blocks are trained.

VolTA-3D, section III-B: a 3-D encoder with a linear head on 96^3 voxels, AdamW, 50 epochs, 5-fold
cross-validation; frozen or partly unfrozen. Splits, metrics and files are those of `heads run`.

    settings.py   keys of a task, and of the training
    network.py    encoder and head; which blocks are trained
    training.py   epochs, and the choice of one on validation subjects
    fitter.py     one training per split, kept on the disk
    data.py       cases and prepared volumes
"""

from nnunet_fm.heads.finetune.data import finetune_data
from nnunet_fm.heads.finetune.settings import FineTuneTask

__all__ = ["FineTuneTask", "finetune_data"]
