"""Find the raw anatomical images of a BIDS dataset and read their file names.

Entities (`ses`, `acq`, ...) and suffixes are those of the BIDS schema, from the standard's own
package `bidsschematools`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nnunet_fm.data.sequences import canonical_sequence, sequence_in_file_name
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.internal.messages import some, unknown

PARTICIPANTS, DESCRIPTION = "participants.tsv", "dataset_description.json"
ANAT_FOLDERS = ("anat", "ses-*/anat")  # below a subject's folder
MASK_ENTITIES = ("label", "seg")
MASK_SUFFIXES = ("mask", "dseg", "probseg", "defacemask", "roi")
MASK, MAP, PHASE = "masks or regions", "maps", "phase, real or imaginary parts"
PROTOCOL = "parts of a quantitative protocol"
DERIVATIVE, NO_BIDS = "derivatives", "names that raw BIDS does not know"
MISPLACED = "files in the folder of another subject or session"

Preferences = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class BidsName:
    """A file name `sub-7_ses-1_acq-a_T1w.nii.gz`, taken apart.

    Attributes:
        entities: values by key, e.g. `{"sub": "7", "ses": "1", "acq": "a"}`, in their order.
        suffix: last part of the name without its ending, e.g. `T1w` or `mask`.
    """

    entities: Mapping[str, str]
    suffix: str

    @property
    def sequence(self) -> str | None:
        """MRI sequence, as `sequences.SPELLINGS` names it; None if the suffix is none of them."""
        sequence = canonical_sequence(self.suffix)
        if sequence != "T1":
            return sequence
        text = "_".join([*self.entities.values(), self.suffix])
        return "T1c" if "ce" in self.entities or sequence_in_file_name(text) == "T1c" else "T1"

    @property
    def variant(self) -> str:
        """Entities that tell images of one subject and sequence apart, e.g. `ses-1_acq-a`."""
        kept = [key for key in self.entities if key not in ("sub", "ce")]
        return "_".join(f"{key}-{self.entities[key]}" for key in kept)

    def fault(self) -> str:
        """Return why this is not a raw weighted image, in a few words; empty if it is one.

        Images are the suffixes of the schema's group `nonparametric` (T1w, T2w, FLAIR, PDw, ...)
        with the entities that it allows, in any order.
        """
        weighted = _raw_anat()["nonparametric"]
        allowed = {short_name(entity) for entity in weighted["entities"]}
        others = set(self.entities) - allowed
        if self.suffix in MASK_SUFFIXES or others & set(MASK_ENTITIES):
            return MASK
        if self.suffix in _raw_anat()["parametric"]["suffixes"]:
            return MAP
        if self.entities.get("part", "mag") != "mag":
            return PHASE
        if self.suffix not in weighted["suffixes"]:
            known = any(self.suffix in group["suffixes"] for group in _raw_anat().values())
            return PROTOCOL if known else NO_BIDS
        if others:
            return DERIVATIVE if others <= set(_entity_names().values()) else NO_BIDS
        return ""


@dataclass(frozen=True)
class BidsImage:
    """One NIfTI file in an `anat` folder, e.g. `sub-7/ses-1/anat/sub-7_ses-1_acq-a_T1w.nii.gz`.

    Attributes:
        path: NIfTI file.
        subject: subject id without `sub-`.
        session: session without `ses-`; empty if there is none.
        name: entities and suffix; None if the file name is not made of them.
        fault: why it is not a raw weighted image; empty if it is one.
    """

    path: Path
    subject: str
    session: str
    name: BidsName | None
    fault: str

    @property
    def sequence(self) -> str | None:
        """MRI sequence, as `sequences.SPELLINGS` names it; None if the name tells none."""
        return self.name.sequence if self.name else None

    def entity(self, key: str) -> str:
        """Value of an entity of the name; empty if the name has none."""
        return self.name.entities.get(key, "") if self.name else ""


def is_nifti(path: Path) -> bool:
    """Return whether a file name is that of a NIfTI file, hidden files excluded."""
    return path.name.lower().endswith((".nii", ".nii.gz")) and not path.name.startswith(".")


def is_bids(folder: Path) -> bool:
    """Return whether a folder is a BIDS dataset: it has a description or an `anat` folder."""
    anat = (folder.glob(f"sub-*/{inside}") for inside in ANAT_FOLDERS)
    return (folder / DESCRIPTION).is_file() or any(any(found) for found in anat)


def subject_id(participant: str) -> str:
    """Return a BIDS participant id without its prefix: `sub-7` gives `7`."""
    return participant.removeprefix("sub-")


def read_description(root: Path) -> dict[str, Any]:
    """Read `dataset_description.json`; an empty dictionary if there is none.

    Raises:
        ValueError: the file is not JSON.
    """
    file = root / DESCRIPTION
    return read_object(file, "repair or remove it") if file.is_file() else {}


def subjects(root: Path) -> list[str]:
    """List the subject ids of a dataset's folders, without `sub-`, sorted."""
    return sorted(subject_id(folder.name) for folder in root.glob("sub-*") if folder.is_dir())


def find_images(root: Path, subject: str = "*") -> Iterator[BidsImage]:
    """Iterate over the NIfTI files in `anat` folders; those that are no images have a `fault`.

    Args:
        root: folder of the dataset.
        subject: subject id without `sub-`; all subjects if not given.

    Yields:
        Images, sorted by path.
    """
    derivative = read_description(root).get("DatasetType") == "derivative"
    paths = [p for inside in ANAT_FOLDERS for p in root.glob(f"sub-{subject}/{inside}/*")]
    for path in sorted(filter(is_nifti, paths)):
        folders = path.relative_to(root).parts[:-1]
        sessions = [part.removeprefix("ses-") for part in folders if part.startswith("ses-")]
        session = sessions[0] if sessions else ""
        name = parse_name(path.name)
        fault = name.fault() if name else NO_BIDS
        if not fault and derivative:
            fault = DERIVATIVE
        if name and not _lies_in(name, subject_id(folders[0]), session):
            fault = MISPLACED
        yield BidsImage(path, subject_id(folders[0]), session, name, fault)


def parse_name(file_name: str) -> BidsName | None:
    """Take a file name apart; None if it is not `sub-ID[_KEY-VALUE ...]_SUFFIX.ENDING`.

    Example:
        >>> parse_name("sub-7_ses-1_T1w.nii.gz")
        BidsName(entities={'sub': '7', 'ses': '1'}, suffix='T1w')
    """
    *parts, suffix = file_name.split(".")[0].split("_")
    entities = {}
    for part in parts:
        key, dash, value = part.partition("-")
        if not (key and dash and value) or key in entities:
            return None
        entities[key] = value
    return BidsName(entities, suffix) if suffix and next(iter(entities), "") == "sub" else None


def list_faults(faults: Iterable[tuple[str, Path]]) -> str:
    """Describe files that are no images, grouped by their fault."""
    groups: dict[str, list[str]] = {}
    for fault, path in faults:
        groups.setdefault(fault, []).append(path.name)
    return "; ".join(f"{len(n)} {fault} ({some(n)})" for fault, n in sorted(groups.items()))


def parse_preferences(words: Iterable[str]) -> Preferences:
    """Read preferences, see `parse_preference`."""
    return [parse_preference(word) for word in words]


def parse_preference(word: str) -> tuple[str, str]:
    """Read a preference such as `acq=mprage`; `acq=` stands for images without `acq`.

    Raises:
        ValueError: no `=`, or an entity that images do not have.
    """
    allowed = [short_name(entity) for entity in _raw_anat()["nonparametric"]["entities"]]
    key, equals, value = word.partition("=")
    if not equals:
        raise InputError(f"--prefer {word!r}; allowed: ENTITY=VALUE, e.g. acq=mprage or run=1")
    if key not in allowed:
        raise InputError(unknown("entity of --prefer", key, allowed))
    return key, value


def preferred(images: Sequence[BidsImage], prefer: Preferences) -> list[BidsImage]:
    """Narrow candidates down by one preference after the other, where any of them has it."""
    kept = list(images)
    for key, value in prefer:
        kept = [image for image in kept if _has(image, key, value)] or kept
    return kept


def short_name(entity: str) -> str:
    """Return the key of an entity in file names: `acquisition` gives `acq`."""
    return _entity_names()[entity]


def _lies_in(name: BidsName, subject: str, session: str) -> bool:
    """Return whether the folders of a subject and a session are those that the name mentions."""
    return name.entities["sub"] == subject and name.entities.get("ses", session) == session


def _has(image: BidsImage, key: str, value: str) -> bool:
    found = image.entity(key)
    if found.isdigit() and value.isdigit():  # run-01 is run 1
        return int(found) == int(value)
    return found == value


@cache
def _schema() -> Any:
    from bidsschematools.schema import load_schema

    return load_schema()


@cache
def _raw_anat() -> dict[str, Any]:
    """Return the groups of raw anatomical files by name, each with suffixes and entities."""
    return dict(_schema().rules.files.raw.anat)


@cache
def _entity_names() -> dict[str, str]:
    """Return the key in file names of each entity, e.g. `acq` of `acquisition`."""
    return {entity: about["name"] for entity, about in _schema().objects.entities.items()}
