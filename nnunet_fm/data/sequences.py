"""Names of MRI sequences: the one in use here, and the spellings of tables, files and datasets."""

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
SEQUENCE_OF = {
    spelling: name
    for name, spellings in SPELLINGS.items()
    for spelling in (name.lower(), *spellings)
}
# endings of BraTS file names, all of them spellings above
BRATS_UNTIL_2021 = ("t1", "t1ce", "t1gd", "t2", "flair")
BRATS_SINCE_2023 = ("t1n", "t1c", "t2w", "t2f")
CONTRAST_ENHANCED = re.compile(r"(^|_)ce-[a-z0-9]+_.*t1w|ce-.*_t1w")  # BIDS: ce-<agent>


def canonical_sequence(text: str) -> str | None:
    """Return the sequence that a word spells, or None if it is not a known spelling.

    Example:
        >>> canonical_sequence("t1ce")
        'T1c'
    """
    return SEQUENCE_OF.get(text.strip().lower())


def sequence_in_file_name(file_name: str) -> str | None:
    """Return the sequence that a file name mentions as a separate word, or None.

    Example:
        >>> sequence_in_file_name("sub-01_ce-gadolinium_T1w.nii.gz")
        'T1c'
    """
    text = re.sub(r"\.(nii(\.gz)?|dcm)$", "", file_name.lower())
    if CONTRAST_ENHANCED.search(text):
        return "T1c"
    words = re.split(r"[_\-.\s]+", text)
    for name, spellings in SPELLINGS.items():
        if any(spelling in words for spelling in spellings):
            return name
    return None


def match_channels(sequences: Sequence[str], channel_names: Sequence[str]) -> list[int | None]:
    """Return the number of the first channel of each sequence; None where there is none.

    Args:
        sequences: names as `SPELLINGS` has them.
        channel_names: names of the channels in any spelling, in their order.

    Example:
        >>> match_channels(["T1c", "T2"], ["t1", "t1ce"])
        [1, None]
    """
    names = [canonical_sequence(name) for name in channel_names]
    return [names.index(sequence) if sequence in names else None for sequence in sequences]
