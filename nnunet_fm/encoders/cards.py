"""Look up weight cards: by name, by architecture, or as bundled weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.encoders.registry import ARCHITECTURES, CARDS, WITHDRAWN, find_architecture
from nnunet_fm.encoders.weight_card import OWN, WeightCard
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


def get_card(name: str, offered: Iterable[str] = ()) -> WeightCard:
    """Return the card called `name`, or the only card called `name.*` (`braindino_vitb16`).

    An architecture, `timm/NAME` or a class of the user's gives a bare card: no published weights,
    and options of the architecture.

    Args:
        name: of a card or an architecture.
        offered: names among which close matches of an unknown one are looked for; all if empty.

    Raises:
        InputError: unknown name (close matches are named), or a card that was withdrawn.
    """
    if name in CARDS:
        return CARDS[name]
    for withdrawn in WITHDRAWN.values():
        if name in (withdrawn.name, withdrawn.name.split(".")[0]):
            raise InputError(f"card {name} is no longer offered: {withdrawn.reason}")
    architecture = find_architecture(name)
    if architecture is not None:
        return WeightCard(
            name=name,
            architecture=name,
            licence=OWN,
            source="",
            options=dict(architecture.options),
            ignored=architecture.ignored,
        )
    tagged = [card for card in CARDS.values() if card.name.split(".")[0] == name]
    if len(tagged) == 1:
        return tagged[0]
    hint = (
        "See `nnunet-fm encoders list`. A network of timm: timm/NAME. A file: its path. "
        "A class of yours: its importable dotted path."
    )
    raise InputError(unknown("encoder", name, offered or [*CARDS, *ARCHITECTURES], hint))


def is_known(name: str) -> bool:
    """Whether `get_card` knows the name."""
    try:
        get_card(name)
    except InputError:
        return False
    return True


def card_of_plans(name: str) -> str:
    """Return the card that reads the weight file of plans which name the card `name`."""
    return WITHDRAWN[name].instead if name in WITHDRAWN else name


def intensity_of(encoder: Encoder, card: str) -> str:
    """Return the intensity convention of the pretraining: the card's or the architecture's."""
    known = CARDS.get(card)
    return (known.intensity if known else None) or encoder.input_spec.intensity


def required_orientation(encoder: Encoder, card: str, options: Mapping[str, Any]) -> str:
    """Return how images have to be stored for an encoder: `RAS`, `LPS`, or empty if any will do.

    Args:
        encoder: the encoder.
        card: its card.
        options: the options that it was built with; `image_orientation` lets it turn images itself.
    """
    orientation = orientation_of(encoder, card)
    fixed = orientation in ("RAS", "LPS") and "image_orientation" not in options
    return orientation if fixed else ""


def takes_ras(encoder: Encoder, card: str, options: Mapping[str, Any]) -> bool:
    """Whether `required_orientation` is RAS; the former name of that question."""
    return required_orientation(encoder, card, options) == "RAS"


def orientation_of(encoder: Encoder, card: str) -> str:
    """Return the orientation of the pretraining images: the card's or the architecture's."""
    known = CARDS.get(card)
    return (known.orientation if known else None) or encoder.input_spec.orientation
