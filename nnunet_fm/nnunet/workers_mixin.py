"""Workers of a training that end with it."""

from nnunet_fm.internal.processes import end_workers_with_us


class WorkersMixin:
    """Lets nnU-Net's loaders and its pools end with the training, even if that is killed."""

    def initialize(self) -> None:
        """Prepare for the workers; nnU-Net calls this before it starts any."""
        end_workers_with_us()
        super().initialize()  # type: ignore[misc]
