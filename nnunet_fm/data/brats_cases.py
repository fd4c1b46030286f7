"""Find the cases of a BraTS download: which file is which channel, and which files are neither."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_fm.data.bids import is_nifti
from nnunet_fm.data.label_schemes import FOUR_CHANNELS
from nnunet_fm.data.sequences import split_sequence
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.files import walk_files
from nnunet_fm.internal.messages import unknown

SEGMENTATION = "seg"
SEGMENTATION_NAMES = (SEGMENTATION, "gtv")  # gtv: meningioma before radiotherapy
_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)


@dataclass
class BratsCase:
    """Files of one BraTS case.

    Attributes:
        name: name of the case.
        files: file of each channel, and of the segmentation (`seg`).
        others: files that belong to it and are neither.
        repeated: channels with a second file.
    """

    name: str
    files: dict[str, Path] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    @property
    def unused(self) -> str:
        """The names of the files that are neither a channel nor the segmentation."""
        return ", ".join(path.name for path in self.others)


@dataclass(frozen=True)
class FileNames:
    """File names besides the usual ones, as patterns such as `*_t1_bet.nii.gz`.

    Attributes:
        patterns: channel, or `seg` for the segmentation, of each pattern. What its first `*`
            stands for is the name of the case.
    """

    patterns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, channels: Sequence[str], segmentations: Sequence[str]) -> "FileNames":
        """Read `--channel T1=PATTERN` and `--segmentation PATTERN`.

        Raises:
            ValueError: no `=`, or an unknown channel.
        """
        patterns = dict.fromkeys(segmentations, SEGMENTATION)
        for text in channels:
            channel, _, pattern = text.partition("=")
            if not pattern:
                raise InputError(
                    f"--channel {text!r}; allowed: CHANNEL=PATTERN, e.g. T1='*_t1_bet.nii.gz'"
                )
            if channel not in FOUR_CHANNELS:
                raise InputError(unknown("channel", channel, FOUR_CHANNELS))
            patterns[pattern] = channel
        return cls(patterns)

    def given(self, file_name: str) -> tuple[str, str] | None:
        """Return the case and the channel (or `seg`) of a file by the patterns, or None."""
        for pattern, channel in self.patterns.items():
            match = re.fullmatch(_as_regex(pattern), file_name)
            if match:
                stem = match[1] if match.groups() else ""
                return stem.rstrip("_-."), channel
        return None

    def recognise(self, file_name: str) -> tuple[str, str] | None:
        """Return the case and the channel (or `seg`) of a file; None if its name says neither."""
        return self.given(file_name) or _usual_name(_ENDING.sub("", file_name))


def find_cases(source: Path, names: FileNames | None = None) -> list[BratsCase]:
    """Find every BraTS case below `source`, with the file names of any year; links are followed.

    A case is a folder of files such as `CASE_t1ce.nii.gz` or `t1c.nii.gz`, or several of them in
    one folder. Files with other names belong to the case in whose folder they lie.

    Args:
        source: folder with the cases, at any depth.
        names: further file names.

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it looks like BraTS.
    """
    if not source.is_dir():
        raise MissingFileError(f"{source} is not a folder; give the one that holds the BraTS cases")
    folders: dict[Path, list[Path]] = {}
    for path in walk_files(source):
        if is_nifti(path):
            folders.setdefault(path.parent, []).append(path)
    cases = [
        case for files in folders.values() for case in _cases_in_folder(files, names or FileNames())
    ]
    if not any(case.files for case in cases):
        raise MissingFileError(
            f"{source} holds no file such as CASE_t1ce.nii.gz (BraTS 2018-2021) or "
            "CASE-t1c.nii.gz (since 2023); other names are given with --channel, e.g. "
            f"--channel T1='*_t1_bet.nii.gz'{_examples(cases)}"
        )
    return sorted(cases, key=lambda case: case.name)


def _examples(cases: Iterable[BratsCase]) -> str:
    names = [case.unused for case in cases]
    return f". It holds {names[0]}" if names else ""


def _usual_name(stem: str) -> tuple[str, str] | None:
    case, sequence = split_sequence(stem)
    if sequence in FOUR_CHANNELS:
        return case, sequence
    match = re.fullmatch(rf"(?:(.*)[_-])?(?:{'|'.join(SEGMENTATION_NAMES)})", stem, re.IGNORECASE)
    return (match[1] or "", SEGMENTATION) if match else None


def _as_regex(pattern: str) -> str:
    parts = re.split(r"([*?])", pattern)
    wild = {"*": "(.*)", "?": "(?:.)"}
    return "".join(wild.get(part, re.escape(part)) for part in parts)


def _cases_in_folder(files: Sequence[Path], names: FileNames) -> list[BratsCase]:
    """Group the files of one folder by case."""
    in_order = sorted(files, key=lambda path: names.given(path.name) is None)  # given ones first
    recognised = [(path, names.recognise(path.name)) for path in in_order]
    stems = {found[0] for _, found in recognised if found and found[1] != SEGMENTATION}
    cases = {stem: BratsCase(stem or files[0].parent.name) for stem in sorted(stems)}
    for path, found in recognised:
        if len(stems) == 1:  # the folder of one case: every file is of this case
            case = cases[next(iter(stems))]
        else:
            stem = found[0] if found else _owner(path, cases)
            case = cases.setdefault(stem, BratsCase(stem or path.parent.name))
        first = case.files.get(found[1]) if found else None
        if found is None or (first and names.given(first.name) and not names.given(path.name)):
            case.others.append(path)
        elif first:
            case.repeated.append(f"{found[1]}: {first.name} and {path.name}")
        else:
            case.files[found[1]] = path
    return list(cases.values())


def _owner(path: Path, stems: Iterable[str]) -> str:
    """Return the case whose name begins a file's, e.g. `case7` of `case7_Segm.nii.gz`; or empty."""
    return max((stem for stem in stems if path.name.startswith(stem)), key=len, default="")
