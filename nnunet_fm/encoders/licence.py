"""Licences of weights, and what follows from them for whoever passes on a model made with them."""

import re

from nnunet_fm.encoders.cards import get_card
from nnunet_fm.encoders.loading.load_report import LoadReport
from nnunet_fm.encoders.weight_card import OWN
from nnunet_fm.internal.errors import InputError

DERIVATIVE = "a derivative of"
UNSTATED = "not stated yet. Before uploading, state one here, and as `license:` in the block above"
FORBIDDEN = re.compile(
    r"(?<![a-z])(nd|mta)(?![a-z])|no[\s_-]?deriv|none found|not stated|not released", re.IGNORECASE
)
CONSEQUENCES = (
    (FORBIDDEN, "pass this folder on only with the permission of the owners of the weights"),
    (
        re.compile(r"non-?\s?commercial|(?<![a-z])nc(?![a-z])", re.IGNORECASE),
        "non-commercial use only, which holds for every use of this model",
    ),
    (re.compile(r"research[\s-]?only", re.IGNORECASE), "use in research only"),
    (
        re.compile(r"share-?\s?alike|(?<![a-z])sa(?![a-z])", re.IGNORECASE),
        "what is made from it has to be passed on under the same licence",
    ),
)


def stated_licence(report: LoadReport) -> str:
    """Return the licence of the weights in a file: that which the file states, or its card.

    What a repository of the Hub states is added.
    """
    carried = str(report.about.get("licence", ""))
    licences = [carried if carried not in ("", OWN) else get_card(report.card).licence]
    if report.licence:
        licences.append(f"{report.licence} (as its repository states)")
    return "; ".join(licences)


def licence_of_derivative(start: LoadReport) -> str:
    """Return the licence note of weights trained from a file.

    A note that the file carries, because it is a derivative itself, is kept.
    """
    carried = str(start.about.get("licence", ""))
    if carried.startswith(DERIVATIVE):
        return carried
    return derivative_of(start.card, stated_licence(start))


def derivative_of(card: str, licence: str) -> str:
    """Return the licence note of weights trained from those of a card."""
    return f"{DERIVATIVE} {card}, to be passed on under the terms of its licence: {licence}"


def check_licence(licence: str, permitted: bool) -> None:
    """Check that weights may be passed on.

    Args:
        licence: licence note of the weights, see `stated_licence` and `licence_of_derivative`.
        permitted: the user has the permission of the owners.

    Raises:
        InputError: the licence forbids it, forbids derivatives or is unknown, and there is no
            permission.
    """
    if FORBIDDEN.search(licence) and not permitted:
        raise InputError(
            f"these weights are {licence}. Without the owners' permission they may not be passed "
            "on; with it, type --i-have-permission"
        )


def consequences(licence: str) -> list[str]:
    """Return what a licence note means for users of the weights, a clause each.

    >>> consequences("CC BY-NC 4.0")
    ['non-commercial use only, which holds for every use of this model']
    >>> consequences("Research-only RAIL-M (gated)")
    ['use in research only']
    """
    return [text for pattern, text in CONSEQUENCES if pattern.search(licence)]


def hub_licence(licence: str) -> dict[str, str]:
    """Return `license` and `license_name` of the Hub's metadata; empty if its author states it.

    >>> hub_licence("a derivative of x, to be passed on under the terms of its licence: CC BY 4.0")
    {'license': 'other', 'license_name': 'cc-by-4.0'}
    """
    if licence in ("", OWN):
        return {}
    terms = licence.rpartition("licence: ")[2]
    return {
        "license": "other",
        "license_name": re.sub(r"[^a-z0-9.]+", "-", terms.lower())[:60].strip("-"),
    }
