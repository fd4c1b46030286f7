"""Warn of datasets that an encoder may have seen in its pretraining, by their names."""

import re
from collections.abc import Sequence


def seen_in_pretraining(pretrained_on: Sequence[str], *names: str) -> list[str]:
    """List the pretraining datasets that a dataset may belong to.

    Releases of one challenge share their patients (BraTS 2023 GLI contains BraTS 2021), so only the
    first word of four letters or more counts: `BraTS2021` matches `Dataset137_BraTS-GLI`.

    Args:
        pretrained_on: datasets of a weight card; descriptions (with spaces) are skipped.
        *names: names of the dataset and of its cases.

    Example:
        >>> seen_in_pretraining(["BraTS2021", "UK-Biobank"], "Dataset137_BraTS-GLI")
        ['BraTS2021']
    """
    words = {word for name in names for word in _words(name)}
    return [name for name in pretrained_on if " " not in name and words & set(_words(name)[:1])]


def _words(text: str) -> list[str]:
    """Words of four letters or more, in lower case."""
    words = re.findall(r"[a-z]+", text.lower())
    return [word for word in words if len(word) >= 4 and word != "dataset"]
