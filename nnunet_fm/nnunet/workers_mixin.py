"""Processes and threads of a training."""

from nnunet_fm.internal.processes import end_workers_with_us
from nnunet_fm.internal.threads import limit_threads_to_cores


class WorkersMixin:
    """Lets nnU-Net's loaders and its pools end with the training, even if that is killed.

    On the CPU, the training uses a thread for each core that it may use.
    """

    def initialize(self) -> None:
        """Prepare for the workers; nnU-Net calls this before it starts any."""
        end_workers_with_us()
        limit_threads_to_cores()
        super().initialize()  # type: ignore[misc]
