"""Files that version 0.1 wrote on synthetic data, with the scripts that made them."""

import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "v0_1.tar.xz"


def unpack(folder: Path) -> Path:
    """Unpack the archive and return the folder of its content."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "v0_1"
