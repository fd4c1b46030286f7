"""What every trainer of this package adds to nnU-Net's."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_fm.nnunet.checkpoint_mixins import AtomicCheckpointMixin, StrictResumeMixin
from nnunet_fm.nnunet.record_mixin import RecordRunMixin
from nnunet_fm.nnunet.seeded_mixin import SeededMixin
from nnunet_fm.nnunet.subset_mixin import SubsetMixin
from nnunet_fm.nnunet.workers_mixin import WorkersMixin


class BaseTrainer(
    SubsetMixin,
    SeededMixin,
    StrictResumeMixin,
    AtomicCheckpointMixin,
    RecordRunMixin,
    WorkersMixin,
    nnUNetTrainer,
):
    """nnU-Net's trainer on a subset, seeded if the plans say so, recorded and safe to kill."""
