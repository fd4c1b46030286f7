"""Identify the weight card of a file: by shapes, by its name and by how it was written."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor

from nnunet_fm.encoders.cards import get_card
from nnunet_fm.encoders.key_format import Converted
from nnunet_fm.encoders.loading.read import CheckpointError
from nnunet_fm.encoders.loading.shapes import options_of, shapes_of
from nnunet_fm.encoders.registry import CARDS
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.extras import install_command
from nnunet_fm.internal.hub_address import HubAddress
from nnunet_fm.internal.messages import some

# A file is taken for a damaged one of its kind if at most this share of its tensors differs.
MAX_DIFFERENT = 0.2
SHARED_NAMES = {"dinov2", "dinov3"}  # in names of files by many authors
UNKNOWN_NAME = "no published file has this name, so its licence and pretraining data are unknown"
SAY_WHICH = "--card NAME"


def identify(
    path: Path,
    converted: Converted,
    containers: list[str],
    hub: HubAddress | None = None,
    key_format: str | None = None,
) -> tuple[WeightCard, str]:
    """Choose the card of a file by its shapes, then its name, then its container.

    Args:
        path: of the file.
        converted: its tensors in our names.
        containers: of the tensors in the file.
        hub: its address, if it comes from the Hub.
        key_format: of the file; cards of other formats are not considered.

    Returns:
        The card and the reason for choosing it.

    Raises:
        CheckpointError: no architecture is close (the closest is named), or cards that build the
            encoder with different numerics fit as well.
    """
    nearest, different = closest(converted.tensors)
    if len(different) > MAX_DIFFERENT * len(shapes_of(nearest, converted.tensors)):
        raise CheckpointError(
            f"{path.name}: no known architecture has these {len(converted.tensors)} tensors; the "
            f"closest, {nearest.name}, differs in {len(different)}: {some(different)}. Say which "
            f"it is (a name from `nnunet-fm encoders list`, or timm/NAME): {SAY_WHICH}"
            f"{_skipped_cards(converted.tensors)}"
        )
    tensors = converted.tensors
    fitting = [
        card
        for card in _of_one_build(nearest, tensors)
        if not card.shipped and reads_format(card, key_format)
    ]
    for reason, cards in _candidates(path, hub, fitting, containers).items():
        if cards and _same_options(cards, tensors):
            return cards[0], reason
    by_tensors = [card for card in fitting if not card.by_files_alone]
    if by_tensors and _same_options(fitting, tensors):
        return by_tensors[0], "shapes"
    bare = get_card(nearest.architecture)
    if _same_options([bare, *fitting], tensors):
        return bare, f"shapes; {UNKNOWN_NAME}"
    names = " or ".join(card.name for card in fitting)
    raise CheckpointError(
        f"{path.name} holds the tensors of {nearest.architecture}, which {names} and files of "
        f"others share, with different numerics ({_differing_options(fitting, tensors)}). Say "
        f"which it is (a name from `nnunet-fm encoders list`, or timm/NAME): {SAY_WHICH}"
    )


def reads_format(card: WeightCard, key_format: str | None) -> bool:
    """Whether a card is of files in this key format; True if the format is unknown (None)."""
    return not card.formats or key_format in (None, *card.formats)


def _candidates(
    path: Path,
    hub: HubAddress | None,
    fitting: list[WeightCard],
    containers: list[str],
) -> dict[str, list[WeightCard]]:
    """Return the cards that each kind of evidence besides shapes leaves, the strongest first."""
    by_tensors = [card for card in fitting if not card.by_files_alone]
    words = set(re.split(r"[^a-z0-9]+", path.stem.lower()))
    families = words - SHARED_NAMES
    return {
        "shapes and the published file's name": [c for c in fitting if is_published(path, c, hub)],
        "shapes and the weights' name in the file name": [
            c for c in by_tensors if _is_named(c, words)
        ],
        "shapes and the family's name in the file name": [
            c for c in by_tensors if c.name.split("_")[0] in families
        ],
        "shapes, and the container that the DINO training code writes": [
            c for c in by_tensors if c.name.endswith(".trained") and containers
        ],
    }


def _same_options(cards: Sequence[WeightCard], tensors: Mapping[str, Tensor]) -> bool:
    options = [options_of(card, tensors) for card in cards]
    return all(others == options[0] for others in options)


def closest(tensors: Mapping[str, Tensor]) -> tuple[WeightCard, list[str]]:
    """Return the card whose encoder is nearest in names and shapes, and the tensors that differ.

    Query and value biases are disregarded.

    Raises:
        CheckpointError: no encoder of this dimension can be built here.
    """
    given = {k: v.shape for k, v in tensors.items() if not k.endswith(("q_bias", "v_bias"))}

    def different(card: WeightCard) -> list[str]:
        expected = shapes_of(card, tensors)
        changed = [k for k, shape in expected.items() if given.get(k) != shape]
        return [k for k in changed if k != "mask_token"] + [k for k in given if k not in expected]

    nearest = min(_buildable_cards(tensors), key=lambda card: len(different(card)))
    return nearest, different(nearest)


def cards_that_fit(tensors: Mapping[str, Tensor], key_format: str | None = None) -> list[str]:
    """Return the names of all cards whose encoders have exactly these tensors.

    Args:
        tensors: the whole state dict of an encoder.
        key_format: of the file; None for any.
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    known = [card for card in CARDS.values() if reads_format(card, key_format)]
    if not _has_volumes(tensors):  # encoders of volumes cannot fit, and take seconds to import
        known = [card for card in known if card.spatial_dims == 2]
    cards = [card for card in known if _missing_package(card) is None]
    return [card.name for card in cards if shapes_of(card, tensors) == shapes]


def nearest_by_shapes(tensors: Mapping[str, Tensor]) -> str:
    """Describe the encoder that shares most shapes with a file of unknown names."""
    given = Counter(tensor.shape for tensor in tensors.values())

    def shared(card: WeightCard) -> int:
        return (given & Counter(shapes_of(card).values())).total()

    def share(card: WeightCard) -> float:
        return shared(card) / max(len(tensors), len(shapes_of(card)))

    nearest = max(_buildable_cards(tensors), key=share)
    total = len(shapes_of(nearest))
    skipped = _skipped_cards(tensors)
    return f"{nearest.name}, with {shared(nearest)} of its {total} tensors{skipped}"


def _has_volumes(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is a 3-D convolution."""
    return any(tensor.ndim == 5 for tensor in tensors.values())


def _cards_of_dimension(tensors: Mapping[str, Tensor]) -> list[WeightCard]:
    """Return the cards of slices, or of volumes where a tensor is a 3-D convolution."""
    dims = 3 if _has_volumes(tensors) else 2
    known = [card for card in CARDS.values() if card.files or not card.by_files_alone]
    return [card for card in known if card.spatial_dims == dims]


def _buildable_cards(tensors: Mapping[str, Tensor]) -> list[WeightCard]:
    cards = [c for c in _cards_of_dimension(tensors) if _missing_package(c) is None]
    if not cards:
        raise CheckpointError(f"no encoder can be compared with the file.{_skipped_cards(tensors)}")
    return cards


def _skipped_cards(tensors: Mapping[str, Tensor]) -> str:
    """Name the cards whose builder needs a package that is not installed; empty if none."""
    skipped: dict[str, list[str]] = {}
    for card in _cards_of_dimension(tensors):
        package = _missing_package(card)
        if package is not None:
            skipped.setdefault(package, []).append(card.name)
    return "".join(
        f". Not compared, as {package} is not installed: {', '.join(names)}; "
        f"type: {install_command(package)}"
        for package, names in skipped.items()
    )


def _missing_package(card: WeightCard) -> str | None:
    """Return the package that the card's builder needs and does not find."""
    try:
        shapes_of(card)
    except ModuleNotFoundError as error:
        return (error.name or str(error)).split(".")[0]
    return None


def _of_one_build(card: WeightCard, tensors: Mapping[str, Tensor]) -> list[WeightCard]:
    """Return the cards whose encoders have the same tensors."""
    same = [c for c in CARDS.values() if c.architecture == card.architecture]
    return [c for c in same if shapes_of(c, tensors) == shapes_of(card, tensors)]


def is_published(path: Path, card: WeightCard, hub: HubAddress | None = None) -> bool:
    """Whether a file has the name under which its authors publish it, or lies in such a folder.

    On the Hub, where names are chosen after those of others, only repositories of the authors are
    such folders.
    """
    name, whole = path.name.lower(), path.absolute().as_posix().lower()
    patterns = card.files
    if hub is not None:
        whole = f"/{hub.repository}/{hub.file}".lower()
        if not card.hub or HubAddress.parse(card.hub).owner != hub.owner:
            patterns = tuple(pattern for pattern in patterns if "/" not in pattern)
    return any(fnmatchcase(whole if "/" in p else name, p.lower()) for p in patterns)


def _is_named(card: WeightCard, words: set[str]) -> bool:
    """Whether the weights' tag is among the words; short tags (`ct`, `v2`) are too common."""
    tag = card.name.split(".")[1]
    return len(tag) > 3 and tag in words


def _differing_options(cards: list[WeightCard], tensors: Mapping[str, Tensor]) -> str:
    """Name the options in which the cards differ, or a user's own file might."""
    options = [options_of(card, tensors) for card in cards]
    if any(card.by_files_alone for card in cards):
        options.append(options_of(get_card(cards[0].architecture), tensors))
    keys = sorted({key for given in options for key in given})
    return ", ".join(key for key in keys if len({str(given.get(key)) for given in options}) > 1)
