"""Worker processes: one core each, as there is one worker for each core that may be used."""

import blosc2
import cv2
import torch


def one_thread() -> None:
    """Stop the libraries that a worker calls from starting threads of their own."""
    blosc2.set_nthreads(1)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
