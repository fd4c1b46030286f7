"""One volume to prepare, and its name in a store."""

import re
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.internal.path_parts import path_part
from nnunet_fm_pretrain.data.acquisition import Acquisition

LATIN_1 = 0xFF  # the last character whose code has two digits
UNKNOWN = "unknown"  # sequence of a volume whose name tells none


@dataclass(frozen=True)
class Source:
    """One volume to prepare.

    Attributes:
        subject: its name within the dataset.
        dataset: name of the collection.
        sequence: as `sequences.SPELLINGS` names it, or as given.
        path: NIfTI file, or folder of one DICOM series.
        mask: brain mask, if given.
        session: visit, run or whatever tells two volumes of one subject and sequence apart; may be
            empty.
        licence: a note that goes into the manifest.
        acquisition: what a table says of it; the files may say more.
    """

    subject: str
    dataset: str
    sequence: str
    path: Path
    mask: Path | None = None
    session: str = ""
    licence: str = ""
    acquisition: Acquisition = Acquisition()

    @property
    def name(self) -> str:
        """Return the path of the volume inside the store, without its ending."""
        parts = [p for p in (self.subject, self.session, self.sequence) if p]
        file = "_".join(_safe(part) for part in parts)
        return f"{path_part(_safe(self.dataset))}/{path_part(file)}"


def _safe(text: str) -> str:
    """Return a safe file name: characters other than letters, digits and .-_ become codes.

    Codes have a fixed length, so that two texts never get one name.
    """
    return re.sub(r"[^A-Za-z0-9.\-_]", _code, text)


def _code(character: re.Match[str]) -> str:
    number = ord(character.group())
    return f"%{number:02x}" if number <= LATIN_1 else f"%u{number:06x}"
