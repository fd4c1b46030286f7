"""Files that version 0.1 wrote on synthetic data, with the scripts that made them."""

import tarfile
from pathlib import Path
from typing import Any

MADE_IN = "/data/work"  # the folder that version 0.1 ran in
ARCHIVE = Path(__file__).parents[1] / "fixtures" / "v0_1.tar.xz"


def unpack(folder: Path) -> Path:
    """Unpack the archive and return the folder of its content."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "v0_1"


def relocate(content: Any, to: str) -> Any:
    """Replace the folder of version 0.1 in all texts of nested lists and dictionaries."""
    if isinstance(content, dict):
        return {key: relocate(value, to) for key, value in content.items()}
    if isinstance(content, list):
        return [relocate(value, to) for value in content]
    return content.replace(MADE_IN, to) if isinstance(content, str) else content
