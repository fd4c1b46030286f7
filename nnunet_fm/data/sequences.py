"""Names of MRI sequences: the one in use here, and the spellings of tables, files and datasets.

A spelling is one or more whole words, such as `t1ce`, `T1 Gd` or `post-contrast T1w`. Words are
separated by anything that is neither a letter nor a digit.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

# words for T1-weighted images, and what is written behind or before them if an agent was given
T1_WORDS = ("t1", "t1w", "t1weighted", "mprage", "mp2rage", "memprage")
AGENTS = ("gadolinium", "contrast", "postcontrast", "postgd", "postgad", "enhanced")
SHORT_AGENTS = ("gd", "gad", "gado")  # before a sequence they may be a patient's initials
BEHIND = (*AGENTS, *SHORT_AGENTS, "c", "ce", "post", "+", "+ c", "+ gd", "contrast enhanced")
BEFORE = (*AGENTS, "ce", "gd", "contrast enhanced")
AFTER_POST = ("contrast", "gd", "gad", "gadolinium")
# no agent: before it was given, or after something else
WITHOUT = ("pre", "no", "non", "without", "wo")
PLAIN_BEHIND = ("pre", "precontrast", "noncontrast", "native", "flair")
OTHER_POSTS = ("op", "operative", "surgery", "surgical", "treatment", "therapy", "rt", "chemo")
TARGETS = ("to", "regto", "on", "in", "space")  # the next sequence is what an image was moved to


def _contrast_enhanced() -> list[str]:
    glued = (word for word in BEHIND if word.isalpha())
    spellings = ["t1cw", *(t1 + word for t1, word in product(T1_WORDS, glued))]
    spellings += [f"ce{t1}" for t1 in T1_WORDS]
    spellings += [f"{t1} {word}" for t1, word in product(T1_WORDS, BEHIND)]
    spellings += [f"{word} {t1}" for t1, word in product(T1_WORDS, BEFORE)]
    spellings += [f"ce {word} {t1}" for t1, word in product(T1_WORDS, (*AGENTS, *SHORT_AGENTS))]
    spellings += [f"{t1} post {agent}" for t1, agent in product(T1_WORDS, AFTER_POST)]
    return spellings + [f"post {agent} {t1}" for t1, agent in product(T1_WORDS, AFTER_POST)]


def _without_contrast() -> list[str]:
    spellings = [*T1_WORDS, "t1n", "t1native", "t1flair", "t1pre"]
    spellings += [f"{t1} {word}" for t1, word in product(T1_WORDS, PLAIN_BEHIND)]
    for t1, no, agent in product(T1_WORDS, WITHOUT, ("contrast", "gd")):
        spellings += [f"{t1} {no} {agent}", f"{no} {agent} {t1}"]
    spellings += [f"{word} {t1}" for t1, word in product(T1_WORDS, PLAIN_BEHIND[:4])]
    return spellings + [f"{t1} post {other}" for t1, other in product(T1_WORDS, OTHER_POSTS)]


SPELLINGS = {
    "T1c": _contrast_enhanced(),
    "FLAIR": ["flair", "t2flair", "t2f", "t2 flair", "t2w flair", "flair t2", "flair t2w"],
    "T1": _without_contrast(),
    "T2*": ["t2*", "t2star", "t2starw", "t2 star", "swi"],
    "T2": ["t2", "t2w", "t2weighted"],
    "PD": ["pd", "pdw", "proton density"],
    "DWI": ["dwi", "trace"],
    "ADC": ["adc"],
}
SEQUENCE_OF = {tuple(s.split()): name for name, spellings in SPELLINGS.items() for s in spellings}
LONGEST = max(map(len, SEQUENCE_OF))
FILLERS = ("weighted", "w", "image", "images", "mri", "scan")  # say nothing
# of two sequences in one file name, the one that is meant
CLOSER = {frozenset(("T1", "T1c")): "T1c", frozenset(("T2", "FLAIR")): "FLAIR"}
WORD = re.compile(r"[a-z0-9*]+|\+")
BIDS_AGENT = re.compile(r"(^|_)ce-[a-z0-9]+_")

# endings of BraTS file names, all of them spellings above
BRATS_UNTIL_2021 = ("t1", "t1ce", "t1gd", "t2", "flair")
BRATS_SINCE_2023 = ("t1n", "t1c", "t2w", "t2f")


def canonical_sequence(text: str) -> str | None:
    """Return the sequence that a text spells, or None if it is not a known spelling.

    Example:
        >>> canonical_sequence("t1ce"), canonical_sequence("T1-weighted, Gd")
        ('T1c', 'T1c')
    """
    words = [word for word in _words(text) if word not in FILLERS]
    return SEQUENCE_OF.get(tuple(words))


def split_sequence(stem: str) -> tuple[str, str | None]:
    """Split a file name without its ending into what comes before its sequence, and the sequence.

    Returns:
        The name without the spelling at its end, and the sequence; the whole name and None if it
        does not end with a spelling.

    Example:
        >>> split_sequence("case_7_T1_Gd")
        ('case_7', 'T1c')
    """
    places = list(WORD.finditer(stem.lower()))
    for count in range(min(LONGEST, len(places)), 0, -1):
        sequence = SEQUENCE_OF.get(tuple(place[0] for place in places[-count:]))
        if sequence:
            return stem[: places[-count].start()].rstrip("_-. +"), sequence
    return stem, None


def sequence_in_file_name(file_name: str) -> str | None:
    """Return the sequence that a file name mentions, or None if it mentions none or several.

    Contrast agents count before plain names. A BIDS name is read by its suffix.

    Example:
        >>> sequence_in_file_name("sub-01_ce-gadolinium_T1w.nii.gz")
        'T1c'
    """
    text = re.sub(r"\.(nii(\.gz)?|dcm)$", "", file_name.lower())
    suffix = canonical_sequence(text.rsplit("_", 1)[-1])
    if text.startswith("sub-") and suffix:
        return "T1c" if suffix == "T1" and BIDS_AGENT.search(text) else suffix
    before, found, behind = _mentioned(_words(text))
    if found == {"T1"} and (
        BIDS_AGENT.search(text) or _agent_in(before, AGENTS) or _agent_behind(behind)
    ):
        return "T1c"
    if len(found) == 1:
        return found.pop()
    return CLOSER.get(frozenset(found))


def without_sequence(stem: str) -> str:
    """Return a file name without its ending and without the sequences that it mentions; or empty.

    Example:
        >>> without_sequence("case_7_T1_Gd_brain")
        'case_7_brain'
    """
    places = list(WORD.finditer(stem.lower()))
    words = [place[0] for place in places]
    kept = list(stem)
    start = 0
    while start < len(words):
        length = _spelling_at(words, start)
        if length:
            first = places[start].start()
            last = places[start + length - 1].end()
            kept[first:last] = [""] * (last - first)
        start += max(length, 1)
    return re.sub(r"[_\-.\s]{2,}", "_", "".join(kept)).strip("_-. ")


def channel_names(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of a dataset's channels, in the order of their numbers.

    Args:
        description: content of nnU-Net's dataset.json, whose older form calls them `modality`.

    Example:
        >>> channel_names({"channel_names": {"1": "FLAIR", "0": "T1", "10": "T2"}})
        {'0': 'T1', '1': 'FLAIR', '10': 'T2'}
    """
    names: dict[str, str] = description.get("channel_names") or description.get("modality", {})
    return {number: names[number] for number in sorted(names, key=lambda n: (len(n), n))}


def match_channels(sequences: Sequence[str], channel_names: Sequence[str]) -> list[int | None]:
    """Return the number of the first channel of each sequence; None where there is none.

    Args:
        sequences: names as `SPELLINGS` has them, or others, which are matched as they are.
        channel_names: names of the channels in any spelling, in their order.

    Example:
        >>> match_channels(["T1c", "T2"], ["t1", "t1ce"])
        [1, None]
    """
    names = canonical_names(channel_names)
    return [names.index(sequence) if sequence in names else None for sequence in sequences]


def canonical_names(channel_names: Sequence[str]) -> tuple[str, ...]:
    """Return names as `SPELLINGS` has them; those that are no known spelling as they are.

    Example:
        >>> canonical_names(["t1ce", "CBF"])
        ('T1c', 'CBF')
    """
    return tuple(canonical_sequence(name) or name.strip() for name in channel_names)


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _mentioned(words: Sequence[str]) -> tuple[list[str], set[str], list[str]]:
    """Return the words before the first sequence, the sequences, and the other words behind it."""
    before: list[str] = []
    found: set[str] = set()
    behind: list[str] = []
    start = 0
    while start < len(words):
        length = _spelling_at(words, start)
        if length == 0:
            (behind if found else before).append(words[start])
        elif start == 0 or words[start - 1] not in TARGETS:
            found.add(SEQUENCE_OF[tuple(words[start : start + length])])
        start += max(length, 1)
    return before, found, behind


def _spelling_at(words: Sequence[str], start: int) -> int:
    """Return the number of words of the longest spelling that starts there; 0 if there is none."""
    for length in range(min(LONGEST, len(words) - start), 0, -1):
        if tuple(words[start : start + length]) in SEQUENCE_OF:
            return length
    return 0


def _agent_in(words: Sequence[str], agents: Sequence[str]) -> bool:
    """Return whether one of the words is an agent that was given."""
    pairs = zip(["", *words], words, strict=False)
    return any(word in agents and before not in WITHOUT for before, word in pairs)


def _agent_behind(words: Sequence[str]) -> bool:
    """Return whether words behind T1 name an agent, e.g. `post`, but not `post op`."""
    pairs = zip(words, [*words[1:], ""], strict=False)
    post = any(word == "post" and behind not in OTHER_POSTS for word, behind in pairs)
    return post or _agent_in(words, (*AGENTS, *SHORT_AGENTS))
