"""The registry of encoders: architectures, key formats and weight cards.

Families fill it when they are imported: those of `nnunet_fm.encoders.families`, and the modules
that installed packages name under the entry point group `nnunet_fm.encoders`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from nnunet_fm.encoders.contract import Encoder, groups_around_blocks
from nnunet_fm.encoders.key_format import Converted, KeyFormat
from nnunet_fm.encoders.options import check_option_names
from nnunet_fm.encoders.weight_card import WeightCard, WithdrawnCard
from nnunet_fm.internal.errors import InputError, UserError
from nnunet_fm.internal.messages import unknown
from nnunet_fm.internal.plugins import find_class, load_plugins

ENTRY_POINTS = "nnunet_fm.encoders"
REQUIRED = ("kind", "input_spec", "in_channels", "feature_info")
Builder = Callable[..., nn.Module]
# What constructors raise for values that they cannot use.
BAD_VALUE = (TypeError, ValueError, RuntimeError, ArithmeticError, AssertionError, LookupError)


@dataclass(frozen=True)
class Architecture:
    """An encoder that can be built.

    Attributes:
        name: `family_arch`.
        build: called as `build(taps=..., **options)`; gives an `Encoder` with random weights.
        ignored: regular expressions of keys that files may hold besides the encoder, for files
            without a weight card of their own.
        adapt: last change to a file's tensors, given the options that the encoder is built with.
        options: of new uses under the architecture's name, where they are not the constructor's
            defaults, which plans of earlier versions rely on.
        shown: returns the options that the tensors of a file show, e.g. the size of its images.
        carried: names of the options that an exported file says of itself.
        fixed: those of them that belong to its weights, and cannot be given with the file.
        key_format: returns how files name the tensors of an encoder whose names no registered
            format knows; asked if the user names the architecture.
    """

    name: str
    build: Builder
    ignored: tuple[str, ...] = ()
    adapt: Callable[[Converted, Mapping[str, Any]], None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    shown: Callable[[Mapping[str, Tensor]], Mapping[str, Any]] | None = None
    carried: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    key_format: Callable[[Encoder], KeyFormat] | None = None


ARCHITECTURES: dict[str, Architecture] = {}
CARDS: dict[str, WeightCard] = {}
WITHDRAWN: dict[str, WithdrawnCard] = {}
KEY_FORMATS: dict[str, KeyFormat] = {}
_NAMESPACES: dict[str, Callable[[str], Architecture]] = {}


def register_architecture(
    name: str,
    build: Builder,
    ignored: tuple[str, ...] = (),
    adapt: Callable[[Converted, Mapping[str, Any]], None] | None = None,
    options: Mapping[str, Any] | None = None,
    shown: Callable[[Mapping[str, Tensor]], Mapping[str, Any]] | None = None,
    carried: tuple[str, ...] = (),
    fixed: tuple[str, ...] = (),
) -> None:
    """Add an architecture; the arguments are those of `Architecture`.

    Raises:
        InputError: the name is taken.

    Example:
        >>> from nnunet_fm.encoders import register_architecture
        >>> register_architecture("mine_vitb16", MyEncoder)  # doctest: +SKIP
    """
    if name in ARCHITECTURES or name.startswith(tuple(_NAMESPACES)):
        raise InputError(f"architecture {name!r} is already registered")
    ARCHITECTURES[name] = Architecture(
        name, build, ignored, adapt, options or {}, shown, carried, fixed
    )


def register_namespace(prefix: str, find: Callable[[str], Architecture]) -> None:
    """Add all architectures called `prefix` + NAME.

    Args:
        prefix: e.g. `timm/`.
        find: returns the architecture of a name, without the prefix; raises InputError for a name
            that it does not know.
    """
    _NAMESPACES[prefix] = find


def register_cards(*cards: WeightCard) -> None:
    """Add weight cards, after their architectures.

    Raises:
        InputError: a name is taken or has no tag, or the architecture is unknown or does not take
            the card's options.
    """
    for card in cards:
        if card.name in CARDS:
            raise InputError(f"weight card {card.name!r} is already registered")
        if not all(card.name.partition(".")):
            raise InputError(f"weight card {card.name!r}; allowed: names as family_arch.weights")
        check_option_names(
            card.architecture, known_architecture(card.architecture).build, card.options
        )
        CARDS[card.name] = card


def withdraw_card(card: WithdrawnCard) -> None:
    """Explain the absence of a card of an earlier version, and read plans that name it."""
    WITHDRAWN[card.name] = card


def register_key_format(key_format: KeyFormat) -> None:
    """Add a way of naming tensors in files.

    Raises:
        InputError: the name is taken.
    """
    if key_format.name in KEY_FORMATS:
        raise InputError(f"key format {key_format.name!r} is already registered")
    KEY_FORMATS[key_format.name] = key_format


def discover() -> None:
    """Import the families of this package, then those of installed packages."""
    from nnunet_fm.encoders import families

    for module in pkgutil.iter_modules(families.__path__):
        importlib.import_module(f"{families.__name__}.{module.name}")
    load_plugins(ENTRY_POINTS)


class _Undeclared(Encoder):
    """Defaults for a plain module, which version 0.1 asked by names that it did not declare."""

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what `parameters_in_use` gives, if the class has it."""
        former = getattr(self, "parameters_in_use", super().active_parameters)
        return iter(former())

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the groups around the blocks of `vit` or `eva`, if the class has one."""
        body = getattr(self, "vit", None) or getattr(self, "eva", None)
        if body is None or not hasattr(body, "norm"):
            return super().layer_groups()
        return groups_around_blocks(self, body.blocks, body.norm)


def find_architecture(name: str) -> Architecture | None:
    """Return the architecture called `name`: registered, in a namespace, or a class of the user.

    Raises:
        InputError: the namespace has no such name, or the module of the class cannot be imported.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    for prefix, find in _NAMESPACES.items():
        if name.startswith(prefix):
            return find(name.removeprefix(prefix))
    user_class = find_user_class(name)
    if user_class is None:
        return None
    return Architecture(name, user_class, key_format=names_of_encoder)


def find_user_class(name: str) -> type[nn.Module] | None:
    """Return the `nn.Module` class that a dotted path names, as an encoder; None if there is none.

    A class that does not derive from `Encoder` gets its defaults, see `_Undeclared`.
    """
    found = find_class(name)
    if found is None or not issubclass(found, nn.Module):
        return None
    if issubclass(found, Encoder):
        return found
    return type(found.__name__, (found, _Undeclared), {"__module__": found.__module__})


def names_of_encoder(encoder: Encoder) -> KeyFormat:
    """Return the format of files that name the tensors as the encoder does."""
    names = encoder.state_dict().keys()
    return KeyFormat(
        "the encoder's own",
        matches=lambda state: bool(names & state.keys()),
        convert=lambda state: Converted(dict(state)),
    )


def known_architecture(name: str) -> Architecture:
    """Return the architecture called `name`.

    Raises:
        InputError: there is none; close matches are named.
    """
    found = find_architecture(name)
    if found is None:
        hint = "A network of timm: timm/NAME. A class of yours: its importable dotted path."
        raise InputError(unknown("encoder architecture", name, ARCHITECTURES, hint))
    return found


def build_encoder(architecture: str, taps: Sequence[int] | None = None, **options: Any) -> Encoder:
    """Build an encoder with random weights; nothing is read or downloaded.

    Args:
        architecture: a registered name, `timm/NAME` for a plain ViT of timm or one of its networks
            with maps of several resolutions, or the dotted path of an importable class
            (`my_package.MyEncoder`) that takes `taps`.
        taps: blocks or stages whose features are returned; if None, the last block of each quarter,
            or all stages.
        **options: numerical options of the architecture, as a weight card states them.

    Raises:
        InputError: unknown architecture (close matches are named) or option, or a class that does
            not declare what `Encoder` asks for.
    """
    found = known_architecture(architecture)
    check_option_names(architecture, found.build, options)
    try:
        built = cast(Encoder, found.build(taps=taps, **options))
    except UserError:
        raise
    except BAD_VALUE as error:
        if not options and not isinstance(error, TypeError):
            raise
        raise InputError(
            f"{architecture} cannot be built with the options {options}: {error}"
        ) from error
    missing = [name for name in REQUIRED if not hasattr(built, name)]
    if type(built).features is Encoder.features:
        missing.append("features")
    if missing:
        raise InputError(
            f"encoder {architecture} lacks {', '.join(missing)}; see nnunet_fm.encoders.Encoder"
        )
    return built
