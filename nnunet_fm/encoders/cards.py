"""Look up weight cards: by name, by architecture, or as bundled weights."""

from pathlib import Path

from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.encoders.registry import ARCHITECTURES, CARDS, find_architecture
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.folders import folder
from nnunet_fm.internal.messages import unknown


def bundled_weights(name: str) -> tuple[Path, WeightCard] | None:
    """Return the file and card of weights that come with this package.

    Args:
        name: of the card, in full or without the part after the dot.
    """
    for card in CARDS.values():
        if card.shipped and name in (card.name, card.name.split(".")[0]):
            return folder("weights") / card.shipped, card
    return None


def get_card(name: str) -> WeightCard:
    """Return the card called `name`, or the only card called `name.*` (`braindino_vitb16`).

    An architecture, `timm/NAME` or a class of the user's gives a bare card: no published weights,
    default options.

    Raises:
        InputError: unknown name; close matches are named.
    """
    if name in CARDS:
        return CARDS[name]
    architecture = find_architecture(name)
    if architecture is not None:
        return WeightCard(
            name=name,
            architecture=name,
            licence="as its author says",
            source="",
            ignored=architecture.ignored,
        )
    tagged = [card for card in CARDS.values() if card.name.split(".")[0] == name]
    if len(tagged) == 1:
        return tagged[0]
    hint = (
        "See `nnunet-fm encoders list`. Any plain ViT of timm: timm/NAME. A file: its path. "
        "A class of yours: its importable dotted path."
    )
    raise InputError(unknown("encoder", name, [*CARDS, *ARCHITECTURES], hint))


def intensity_of(encoder: Encoder, card: str) -> str:
    """Return the intensity convention of the pretraining: the card's or the architecture's."""
    known = CARDS.get(card)
    return (known.intensity if known else None) or encoder.input_spec.intensity
