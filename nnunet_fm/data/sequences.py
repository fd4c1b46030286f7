"""Names of MRI sequences: the spellings in use, and the one that the manifest keeps."""

import re
from collections.abc import Sequence

# Longer spellings first: "t1ce" must not be read as "t1".
SPELLINGS = {
    "T1c": ("t1post", "t1gd", "t1ce", "t1c", "t1wce", "ce-t1w", "ce_t1w", "t1+c", "mprage_post"),
    "FLAIR": ("t2flair", "t2-flair", "t2_flair", "flair", "t2f"),
    "T1": ("t1weighted", "t1native", "mp2rage", "mprage", "t1w", "t1n", "t1"),
    "T2*": ("t2starw", "t2star", "t2*", "swi"),
    "T2": ("t2weighted", "t2w", "t2"),
    "PD": ("pdw", "pd"),
    "DWI": ("dwi", "trace"),
    "ADC": ("adc",),
}


def sequence_named(text: str) -> str | None:
    """The sequence that a word means ("t1ce" is T1c), or None if it is no spelling of a known one."""
    word = text.strip().lower()
    return next(
        (name for name, spellings in SPELLINGS.items() if word in (name.lower(), *spellings)), None
    )


def sequence_in(file_name: str) -> str | None:
    """The sequence that a file name mentions as a word of its own, or None."""
    text = re.sub(r"\.(nii(\.gz)?|dcm)$", "", file_name.lower())
    if re.search(
        r"(^|_)ce-[a-z0-9]+_.*t1w|ce-.*_t1w", text
    ):  # BIDS: ce-<agent> is contrast-enhanced
        return "T1c"
    words = re.split(r"[_\-.\s]+", text)
    for name, spellings in SPELLINGS.items():
        if any(spelling in words for spelling in spellings):
            return name
    return None


def channels_of(wanted: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """For each sequence wanted, the number of the first channel whose name is a spelling of it; None if there is none.

    Args:
        wanted: names as `SPELLINGS` has them.
        names: of the channels, in their order.
    """
    found = [sequence_named(name) for name in names]
    return [found.index(w) if w in found else None for w in wanted]
