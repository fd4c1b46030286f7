"""Report licence and pretraining data of weights, and warn of a dataset that they have seen."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_fm.encoders import WeightCard
from nnunet_fm.internal.files import visible_files
from nnunet_fm.nnunet.file_names import GROUND_TRUTH


def about_weights(card: WeightCard, preprocessed: Path, dataset: Mapping[str, Any]) -> list[str]:
    """Return what a user has to know about published weights, one line each.

    Args:
        card: of the weights.
        preprocessed: folder of the dataset.
        dataset: content of its `dataset.json`.
    """
    report = [f"licence of the weights: {card.licence}"]
    if card.unverified:
        report.append(f"WARNING: unverified: {card.unverified}")
    if not card.pretrained_on:
        return report
    data = ", ".join(card.pretrained_on)
    report.append(f"pretrained on {data}: keep these apart from your test cases")
    first_case = next((p.name for p in visible_files(preprocessed / GROUND_TRUTH, "")), "")
    title = str(dataset.get("name", ""))
    seen = seen_in_pretraining(card.pretrained_on, preprocessed.name, first_case, title)
    if seen:
        report.append(
            f"WARNING: {preprocessed.name} looks like {' and '.join(seen)}, on which this encoder "
            "was pretrained: it may have seen the test cases, and results may look better than "
            "they are (leakage)"
        )
    return report


def seen_in_pretraining(pretrained_on: Sequence[str], *names: str) -> list[str]:
    """List the pretraining datasets that a dataset may belong to.

    Releases of one challenge share their patients (BraTS 2023 GLI contains BraTS 2021), so only the
    first word of four letters or more counts: `BraTS2021` matches `Dataset137_BraTS-GLI`. A name
    without one counts as a whole: `ULS23` matches `Dataset090_ULS23`.

    Args:
        pretrained_on: datasets of a weight card; descriptions (with spaces) are skipped.
        *names: names of the dataset and of its cases.

    Example:
        >>> seen_in_pretraining(["BraTS2021", "UK-Biobank"], "Dataset137_BraTS-GLI")
        ['BraTS2021']
    """
    words = {word for name in names for word in [*_words(name), *_parts(name)]}
    single = [name for name in pretrained_on if " " not in name]
    return [name for name in single if words & set(_words(name)[:1] or [name.lower()])]


def _parts(text: str) -> list[str]:
    """Return what lies between underscores and spaces, in lower case."""
    return re.split(r"[_\s]+", text.lower())


def _words(text: str) -> list[str]:
    """Words of four letters or more, in lower case."""
    words = re.findall(r"[a-z]+", text.lower())
    return [word for word in words if len(word) >= 4 and word != "dataset"]
