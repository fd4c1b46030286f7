"""Find the anatomical images of a BIDS dataset and read their file names."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.data.sequences import sequence_in_file_name

PARTICIPANTS, DESCRIPTION = "participants.tsv", "dataset_description.json"


@dataclass(frozen=True)
class BidsImage:
    """One image below an `anat` folder, e.g. `sub-7/ses-1/anat/sub-7_ses-1_acq-a_T1w.nii.gz`.

    Attributes:
        path: NIfTI file.
        subject: subject id without `sub-`.
        session: session without `ses-`; empty if there is none.
        entities: the parts of the file name between subject and suffix, e.g. `ses-1`, `acq-a`.
        suffix: last part of the file name, e.g. `T1w` or `mask`.
    """

    path: Path
    subject: str
    session: str
    entities: tuple[str, ...]
    suffix: str

    @property
    def sequence(self) -> str | None:
        """MRI sequence, as `sequences.SPELLINGS` names it; None if the file name mentions none."""
        return sequence_in_file_name(self.path.name)


def is_nifti(path: Path) -> bool:
    """Return whether a file name is that of a NIfTI file, hidden files excluded."""
    return path.name.lower().endswith((".nii", ".nii.gz")) and not path.name.startswith(".")


def is_bids(folder: Path) -> bool:
    """Return whether a folder is a BIDS dataset: it has a description or an `anat` folder."""
    return (folder / DESCRIPTION).is_file() or any(folder.glob("sub-*/**/anat"))


def subject_id(participant: str) -> str:
    """Return a BIDS participant id without its prefix: `sub-7` gives `7`."""
    return participant.removeprefix("sub-")


def find_images(root: Path, subject: str = "*") -> Iterator[BidsImage]:
    """Iterate over the NIfTI files in `anat` folders, masks and derivatives of them included.

    Args:
        root: folder of the dataset.
        subject: subject id without `sub-`; all subjects if not given.

    Yields:
        Images, sorted by path.
    """
    for path in sorted(root.glob(f"sub-{subject}/**/anat/*")):
        if is_nifti(path):
            yield _parse(path, path.relative_to(root).parts[:-1])


def _parse(path: Path, folders: tuple[str, ...]) -> BidsImage:
    first, *entities = path.name.split(".")[0].split("_")
    suffix = entities.pop() if entities else first
    sessions = [part.removeprefix("ses-") for part in folders if part.startswith("ses-")]
    session = sessions[0] if sessions else ""
    return BidsImage(path, subject_id(first), session, tuple(entities), suffix)
