"""Whether an encoder saw a dataset in its pretraining."""

import re
from collections.abc import Sequence


def seen_in_pretraining(pretrained_on: Sequence[str], *about: str) -> list[str]:
    """The datasets of a weight card that a dataset at hand may belong to, by its name or those of its cases.

    Releases of one challenge share their patients (BraTS 2023 GLI holds BraTS 2021): of a name only
    its first word of four letters or more counts, so that `BraTS2021` is found in
    `Dataset137_BraTS-GLI`.

    Args:
        pretrained_on: names of datasets; descriptions (with spaces) are passed over.
        about: names of the dataset and of its cases.
    """
    here = {word for text in about for word in _words(text)}
    return [name for name in pretrained_on if " " not in name and here & set(_words(name)[:1])]


def _words(text: str) -> list[str]:
    return [
        word for word in re.findall(r"[a-z]+", text.lower()) if len(word) >= 4 and word != "dataset"
    ]
