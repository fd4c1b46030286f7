"""All published weights as a page in Markdown, made from their cards."""

from collections.abc import Iterable
from dataclasses import replace

import torch

from nnunet_fm.encoders.cards import intensity_of, orientation_of
from nnunet_fm.encoders.contract import FeatureInfo
from nnunet_fm.encoders.registry import CARDS, build_encoder
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.markdown import markdown_table

COLUMNS = (
    "card",
    "parameters",
    "maps: channels (stride)",
    "file or repository",
    "pretrained on",
    "licence of the weights",
    "of the code",
    "intensities",
    "orientation",
    "authors use",
    "paper",
)
HEAD = """# Published weights

This page is written by `nnunet-fm encoders list --markdown` from the weight cards. It lists what
`--encoder FILE --card CARD` reads. [3-D encoders and 2.5-D networks](encoders.md) explains the
options, and what was verified.

**None of these files comes with this package, and none was available when this was written.** State
the licence of the weights where you publish results, and keep the pretraining data apart from your
test cases. "Unverified" marks networks that could not be compared with their authors' code. An
empty cell means that the card does not say.
"""
KINDS = {2: "## Slices", 3: "## Volumes"}


def weights_page() -> str:
    """Return the page: one table for encoders of slices, and one for those of volumes."""
    published = [card for card in CARDS.values() if _is_published(card)]
    parts = [HEAD]
    for dims, title in KINDS.items():
        rows = [_row(card) for card in published if card.spatial_dims == dims]
        parts.append(f"{title}\n\n{markdown_table(COLUMNS, rows)}\n")
    unverified = [f"* `{card.name}`: {card.unverified}." for card in published if card.unverified]
    parts.append("\n".join(["## Unverified", "", *unverified]) + "\n")
    return "\n".join(parts)


def _is_published(card: WeightCard) -> bool:
    """Whether a card is of weights that somebody published, not of what is pretrained here."""
    made_here = card.name.endswith(".trained") or card.shipped is not None
    return not made_here and "not released" not in card.licence


def _row(card: WeightCard) -> list[str]:
    with torch.device("meta"):
        encoder = build_encoder(card.architecture, **card.options)
    million = sum(p.numel() for p in encoder.parameters()) / 1e6
    file = card.source.replace("https://", "")
    return [
        f"`{card.name}`" + (" (unverified)" if card.unverified else ""),
        f"{million:.1f} M",
        _maps(encoder.feature_info),
        f"{file}: `{card.hub}`" if card.hub else file,
        ", ".join(card.pretrained_on),
        card.licence,
        card.code_licence,
        intensity_of(encoder, card.name),
        orientation_of(encoder, card.name),
        card.downstream,
        card.citation,
    ]


def _maps(infos: Iterable[FeatureInfo]) -> str:
    """Write equal maps once, with their number."""
    found: dict[FeatureInfo, int] = {}
    for info in infos:
        key = replace(info, name="")
        found[key] = found.get(key, 0) + 1
    return ", ".join(
        (f"{count} x " if count > 1 else "") + f"{info.channels} ({info.stride})"
        for info, count in found.items()
    )
