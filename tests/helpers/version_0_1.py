"""Files that version 0.1 wrote on synthetic data, with the scripts that made them."""

import tarfile
from pathlib import Path
from typing import Any

from nnunet_fm.encoders import EncoderSource, tensors_sha256
from nnunet_fm.encoders.random_weights import build_random_as_torch_does

MADE_IN = "/data/work"  # the folder that version 0.1 ran in
ARCHIVE = Path(__file__).parents[1] / "fixtures" / "v0_1.tar.xz"


def unpack(folder: Path) -> Path:
    """Unpack the archive and return the folder of its content."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "v0_1"


def drawn_on_this_processor(source: EncoderSource | None) -> bool:
    """Whether torch rounds the random weights here as on the processor that 0.1 ran on.

    True for weights that are not random.
    """
    assert source is not None
    if source.seed is None:
        return True
    drawn = build_random_as_torch_does(source.architecture, source.seed, **source.options)
    return tensors_sha256(drawn.state_dict()) == source.sha256


def relocate(content: Any, to: str) -> Any:
    """Replace the folder of version 0.1 in all texts of nested lists and dictionaries."""
    if isinstance(content, dict):
        return {key: relocate(value, to) for key, value in content.items()}
    if isinstance(content, list):
        return [relocate(value, to) for value in content]
    return content.replace(MADE_IN, to) if isinstance(content, str) else content
