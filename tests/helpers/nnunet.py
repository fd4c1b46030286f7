"""Names of the small dataset that `conftest.py` plans, and the type of its `run` fixture."""

import subprocess
from collections.abc import Callable

DATASET = "Dataset007_Small"


CONFIGURATION, PLANS = "2d_fm48", "FM_braindino"  # of `planned`


Run = Callable[..., "subprocess.CompletedProcess[str]"]
