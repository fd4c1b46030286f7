"""Child processes end with the sweep."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from nnunet_fm.experiments.child_processes import ChildProcesses, stopped_with_us


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_lost_connection_ends_the_children(number: int, tmp_path: Path) -> None:
    children, codes = ChildProcesses(), list[int]()
    words = ["python", "-c", "import time; time.sleep(60)"]
    thread = threading.Thread(
        target=lambda: codes.append(children.run(words, tmp_path / "log", {}))
    )
    with pytest.raises(KeyboardInterrupt), stopped_with_us(children):
        thread.start()
        while not children.running:
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        time.sleep(10)
    thread.join(10)
    assert codes == [-signal.SIGTERM]
