"""Files that matter are written beside their target and moved into place."""

import csv
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

# torch.save says RuntimeError where the disk is full, in one of these words
WRITER = re.compile("PytorchStreamWriter|inline_container|iostream")


@contextmanager
def replaced_atomically(filename: str, then: str = "type the command again") -> Iterator[str]:
    """Give a name to write to, then move that file over `filename`; on any error the old file stays.

    Args:
        filename: the target.
        then: what to do after space has been made, for the error's message.

    Raises:
        OSError: the disk is full or not writable; the message says what survived.
    """
    target, temporary = Path(filename), Path(f"{filename}.tmp")
    try:
        yield str(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError) and not WRITER.search(str(error)):
            raise
        survived = f"the previous {target.name} is intact" if target.exists() else "there was none before"
        raise OSError(f"could not write {target} ({error}); {survived}. Free disk space, then {then}") from error


def write_csv(rows: Iterable[Any], path: Path) -> None:
    """Write dataclass instances of one kind, a line each, their fields as columns."""
    content = [asdict(row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(content[0]))
        writer.writeheader()
        writer.writerows(content)
