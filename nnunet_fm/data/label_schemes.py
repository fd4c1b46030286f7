"""What the numbers in the label files of the BraTS challenges mean: one table for all commands.

Labels and regions are those of the challenges' own tools: `BraTS-evaluation` 0.0.10 on PyPI, and
github.com/rachitsaluja/BraTS-2024-Metrics for the years before. In 2023 the paediatric challenge
had the labels of gliomas; since 2024 it has four of its own.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

SCHEME_KEY = "label_scheme"  # in dataset.json: name of the scheme
FOUR_CHANNELS = ("T1", "T1c", "T2", "FLAIR")
# names of regions in `dataset.json`
LONG_NAMES = {
    "WT": "whole tumor",
    "TC": "tumor core",
    "ET": "enhancing tumor",
    "RC": "resection cavity",
    "CC": "cystic component",
    "NET": "non-enhancing tumor",
    "ED": "edema",
    "GTV": "gross tumor volume",
}


@dataclass(frozen=True)
class Region:
    """A named union of labels, e.g. tumour core."""

    name: str
    labels: tuple[int, ...]


@dataclass(frozen=True)
class BratsScheme:
    """The labels of one challenge.

    Attributes:
        name: for `--scheme` and `dataset.json`.
        title: what the challenge is about.
        years: of the challenges that use it.
        labels: what each value means.
        regions: what is scored, in the challenge's own labels.
        patterns: beginnings of case names, as regular expressions in lower case.
        channels: sequences that a case has.
        trained: names of the regions that nnU-Net is trained for; all labels follow from them.
        mistaken: scheme whose enhancing tumour has the number of this one's resection cavity,
            where cases of both have the same names.
    """

    name: str
    title: str
    years: str
    labels: Mapping[int, str]
    regions: tuple[Region, ...]
    patterns: tuple[str, ...]
    channels: tuple[str, ...] = FOUR_CHANNELS
    trained: tuple[str, ...] = field(default=("WT", "TC", "ET"))
    mistaken: str = ""

    @property
    def meaning(self) -> str:
        """The labels in words, e.g. `1 NCR, 2 ED, 4 ET`."""
        return ", ".join(f"{label} {name}" for label, name in self.labels.items())

    @property
    def written(self) -> dict[int, int]:
        """Label that nnU-Net gets for each label of the challenge: nnU-Net's are consecutive."""
        return {label: number for number, label in enumerate(self.labels, 1)}

    @property
    def written_regions(self) -> tuple[Region, ...]:
        """The regions in nnU-Net's labels."""
        return tuple(
            Region(region.name, tuple(self.written[label] for label in region.labels))
            for region in self.regions
        )

    @property
    def scored_regions(self) -> tuple[Region, ...]:
        """The regions for files with the challenge's labels or nnU-Net's; the two never conflict.

        Until 2021 ET is 4 in files of the challenge and 3 in nnU-Net's; there is no other 3.
        """
        pairs = zip(self.regions, self.written_regions, strict=True)
        return tuple(
            Region(region.name, tuple(sorted({*region.labels, *written.labels})))
            for region, written in pairs
        )

    def describes(self, case: str) -> bool:
        """Return whether a case is named as the challenge names its cases."""
        return any(re.match(f"(?:{p})(?![a-z0-9])", case.lower()) for p in self.patterns)

    def covers(self, labels: Iterable[int], or_written: bool = False) -> bool:
        """Return whether the challenge has all of these labels, besides 0.

        Args:
            labels: labels of a file or of several.
            or_written: they may also all be nnU-Net's.
        """
        found = set(labels) - {0}
        return found <= set(self.labels) or (or_written and found <= set(self.written.values()))

    def memberships(self, label: int) -> frozenset[str]:
        """Names of the regions that hold a label: what it means, in short."""
        return frozenset(region.name for region in self.regions if label in region.labels)

    def dataset_labels(self) -> dict[str, int | list[int]]:
        """Return `labels` of nnU-Net's `dataset.json`."""
        labels: dict[str, int | list[int]] = {"background": 0}
        for region in self._trained_regions():
            several = len(self.trained) > 1
            labels[LONG_NAMES[region.name]] = list(region.labels) if several else region.labels[0]
        return labels

    def class_order(self) -> list[int]:
        """Return `regions_class_order` of `dataset.json`: the label where a region is innermost."""
        regions = [set(region.labels) for region in self._trained_regions()]
        order = []
        for number, labels in enumerate(regions):
            (innermost,) = labels.difference(*regions[number + 1 :])
            order.append(innermost)
        return order

    def _trained_regions(self) -> list[Region]:
        by_name = {region.name: region for region in self.written_regions}
        return [by_name[name] for name in self.trained]


_GLIOMA_REGIONS = (Region("WT", (1, 2, 3)), Region("TC", (1, 3)), Region("ET", (3,)))
_CAVITY_REGIONS = (*_GLIOMA_REGIONS, Region("RC", (4,)))
_NETC = {1: "NETC", 2: "SNFH", 3: "ET"}
_NETC_RC = {**_NETC, 4: "RC"}

_TABLE = (
    BratsScheme(
        "gli2021",
        "adult glioma",
        "2017-2021",
        {1: "NCR", 2: "ED", 4: "ET"},
        (Region("WT", (1, 2, 4)), Region("TC", (1, 4)), Region("ET", (4,))),
        ("brats(1[789]|20)_.+", r"brats2021_\d+"),
    ),
    BratsScheme(
        "gli2023",
        "adult glioma before treatment",
        "2023",
        {1: "NCR", 2: "SNFH", 3: "ET"},
        _GLIOMA_REGIONS,
        (r"brats-gli-\d+(?!-[1-9]\d\d)",),  # time points from 100 on are after treatment
    ),
    BratsScheme(
        "gli2024",
        "adult glioma after treatment",
        "2024-2025",
        _NETC_RC,
        _CAVITY_REGIONS,
        (r"brats-gli-\d+",),
        trained=("WT", "TC", "ET", "RC"),
        mistaken="gli2021",
    ),
    BratsScheme(
        "ssa",
        "glioma in Sub-Saharan Africa",
        "2023-2025",
        {1: "NCR", 2: "SNFH", 3: "ET"},
        _GLIOMA_REGIONS,
        (r"brats-ssa-\d+",),
    ),
    BratsScheme("men", "meningioma", "2023, 2025", _NETC, _GLIOMA_REGIONS, (r"brats-men-\d+",)),
    BratsScheme(
        "menrt",
        "meningioma before radiotherapy",
        "2024-2025",
        {1: "GTV"},
        (Region("GTV", (1,)),),
        (r"brats-men-rt-\d+",),
        channels=("T1c",),
        trained=("GTV",),
    ),
    BratsScheme(
        "mets2023",
        "metastases before treatment",
        "2023-2024",
        _NETC,
        _GLIOMA_REGIONS,
        (r"brats-mets?-\d+",),
    ),
    BratsScheme(
        "mets2025",
        "metastases before and after treatment",
        "2025",
        _NETC_RC,
        _CAVITY_REGIONS,
        (r"brats-mets?-\d+",),
        trained=("WT", "TC", "ET", "RC"),
    ),
    BratsScheme(
        "ped2023",
        "paediatric glioma",
        "2023",
        {1: "NC", 2: "ED", 3: "ET"},
        _GLIOMA_REGIONS,
        (r"brats-peds?-\d+",),
    ),
    BratsScheme(
        "ped2024",
        "paediatric glioma",
        "2024-2025",
        {1: "ET", 2: "NET", 3: "CC", 4: "ED"},
        (
            Region("WT", (1, 2, 3, 4)),
            Region("TC", (1, 2, 3)),
            Region("ET", (1,)),
            Region("NET", (2,)),
            Region("CC", (3,)),
            Region("ED", (4,)),
        ),
        (r"brats-peds?-\d+",),
        trained=("WT", "TC", "ET", "CC"),
    ),
    BratsScheme("goat", "all tumours (GoAT)", "2024", _NETC, _GLIOMA_REGIONS, (r"brats-goat-\d+",)),
)
SCHEMES = {scheme.name: scheme for scheme in _TABLE}


def get_scheme(name: str) -> BratsScheme:
    """Return a scheme by its name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in SCHEMES:
        raise InputError(unknown("label scheme", name, SCHEMES))
    return SCHEMES[name]


def fitting_schemes(labels: Collection[int]) -> str:
    """Name the schemes that have all of these labels, e.g. `gli2024 (1 NETC, ...), ped2024 (...)`.

    Schemes whose labels mean the same are listed together.
    """
    groups: dict[str, list[str]] = {}
    for scheme in SCHEMES.values():
        if scheme.covers(labels):
            groups.setdefault(scheme.meaning, []).append(scheme.name)
    return "; ".join(f"{', '.join(names)} ({meaning})" for meaning, names in groups.items())
