"""What methods that reconstruct have in common."""

from collections.abc import Mapping

SMALLEST = 1e-6  # of a squared error
USELESS = 0.99  # of the loss of predicting zero


def nothing_reconstructed(monitors: Mapping[str, float]) -> str | None:
    """Return a sentence if the loss `reconstruction` is no better than `predict_zero`."""
    share = monitors["reconstruction"] / max(monitors["predict_zero"], SMALLEST)
    if share > USELESS:
        return f"the reconstruction is no better than predicting zero ({share:.1%} of its loss)"
    return None
