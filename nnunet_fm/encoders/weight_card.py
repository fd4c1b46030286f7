"""What is known about a published checkpoint."""

import re
from dataclasses import dataclass, field
from typing import Any

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.hub_address import HubAddress

OWN = "as its author says"  # licence of a file whose card states none


@dataclass(frozen=True)
class WeightCard:
    """One published checkpoint.

    Attributes:
        name: `family_arch.weights`.
        architecture: name in the registry.
        licence: of the weights, not of the code.
        code_licence: of the authors' code, if known.
        source: where to get them.
        hub: their place on the Hugging Face Hub, `hf://OWNER/NAME/FILE`; empty if unknown.
        options: numerical options that the weights need (LayerNorm epsilon, rotary precision, ...).
            What is left open is taken from the file, if the architecture can tell it.
        varies: names of those options in which copies of the file differ, so that the file decides.
        pretrained_on: datasets used in pretraining; keep them apart from your test cases.
        citation: arXiv number or DOI of the paper.
        sha256: of the published file, if known.
        allowed_missing: tensors that the file may lack; they keep their initial value.
        ignored: regular expressions of keys that the file may hold besides the encoder.
        shipped: file in the folder `weights`, for weights that come with this package.
        spatial_dims: 2 for slices, 3 for volumes.
        files: patterns of the published file's name; of its whole path if they contain a slash, for
            files whose folder alone has a distinctive name.
        by_files_alone: whether only the file name can tell these weights from files of others with
            the same tensors, which have another licence or need other options. Without `files`,
            only the card that a file carries, or the user, can.
        formats: names of the key formats in which they were published; any if empty.
        intensity: of the pretraining images, if it is not the architecture's usual one.
        orientation: of the pretraining images, if it is not the architecture's usual one.
        downstream: what the authors give to their heads and decoders, e.g. the CLS token.
        unverified: what of the network could not be checked against the authors' code, if that is
            not public; `encoders verify` and `plan` show it.

    Raises:
        InputError: a field of the wrong kind.
    """

    name: str
    architecture: str
    licence: str
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    pretrained_on: tuple[str, ...] = ()
    citation: str = ""
    sha256: str | None = None
    allowed_missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    shipped: str | None = None
    spatial_dims: int = 2
    files: tuple[str, ...] = ()
    by_files_alone: bool = False
    formats: tuple[str, ...] = ()
    varies: tuple[str, ...] = ()
    intensity: str | None = None
    orientation: str | None = None
    hub: str = ""
    code_licence: str = ""
    downstream: str = ""
    unverified: str = ""

    def __post_init__(self) -> None:
        """Check what a plain mistake would break only later, for another file or another user."""
        for name in ("pretrained_on", "allowed_missing", "ignored", "files", "formats", "varies"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(v, str) for v in values):
                raise InputError(
                    f"weight card {self.name}: {name} is {values!r}; allowed: a tuple of texts"
                )
        for pattern in self.ignored:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(
                    f"weight card {self.name}: ignored has {pattern!r}, which is no regular "
                    f"expression ({error})"
                ) from None
        if self.hub:
            HubAddress.parse(self.hub)
        if self.spatial_dims not in (2, 3):
            raise InputError(
                f"weight card {self.name}: spatial_dims {self.spatial_dims}; allowed: 2, 3"
            )


@dataclass(frozen=True)
class WithdrawnCard:
    """A card of an earlier version that is no longer offered.

    Attributes:
        name: `family_arch.weights`.
        reason: a sentence for users who ask for it.
        instead: the card that reads the weight files of plans that name it.
    """

    name: str
    reason: str
    instead: str


def exported_card(architecture: str, method: str, citation: str, **fields: Any) -> WeightCard:
    """Return the card of what `pretrain export` writes for an architecture.

    Args:
        architecture: name in the registry.
        method: of the pretraining.
        citation: of the method.
        **fields: further ones of `WeightCard`.
    """
    return WeightCard(
        name=f"{architecture}.trained",
        architecture=architecture,
        licence=OWN,
        source=f"written by `nnunet-fm pretrain export` of the method {method}",
        citation=citation,
        **fields,
    )
