"""Whether an encoder saw a dataset in its pretraining."""

import re
from collections.abc import Sequence


def seen_in_pretraining(pretrained_on: Sequence[str], *about: str) -> list[str]:
    """The datasets of a weight card that a dataset at hand may belong to, by its name or those of its cases.

    Releases of one challenge share their patients (BraTS 2023 GLI holds BraTS 2021), so that `BraTS2021` is found in
    `Dataset137_BraTS-GLI`.

    Args:
        pretrained_on: names of datasets; descriptions (with spaces) are passed over.
        about: names of the dataset and of its cases, its description.
    """
    text = _plain(" ".join(about))
    return [name for name in pretrained_on if " " not in name and _family(name) in text]


def _family(name: str) -> str:
    """`brats` of `BraTS2023-MEN`; the whole name where its first word is short (`ukbiobank`)."""
    first = re.match(r"[a-z]*", name.lower())
    return first[0] if first and len(first[0]) >= 4 else _plain(name)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())
