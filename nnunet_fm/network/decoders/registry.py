"""The registry of decoders, filled by this package and by installed ones.

A package adds decoders in a module that it names under the entry point group `nnunet_fm.decoders`.
A class that is importable needs no registration: plans name it by its dotted path.
"""

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

from nnunet_fm.encoders import Encoder
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown
from nnunet_fm.internal.plugins import find_class, load_plugins
from nnunet_fm.network.decoders.base import Decoder

ENTRY_POINTS = "nnunet_fm.decoders"
DECODERS: dict[str, list[type[Decoder]]] = {}  # classes for different features share a name
HINT = "A decoder of yours: its importable dotted path, e.g. my_package.MyDecoder."
GIVEN_ALWAYS = 4  # feature_info, num_classes, stages, input_channels; options follow
ONE_STRIDE = ", every map at the stride of its patches"


def register_decoder(name: str, decoder: type[Decoder]) -> None:
    """Add a decoder under the name that `nnunet-fm plan --decoder` takes.

    Decoders that take other features, e.g. those of slices and those of volumes, may share a name.

    Raises:
        InputError: the name is taken.

    Example:
        >>> from nnunet_fm.network.decoders import register_decoder
        >>> register_decoder("mine", MyDecoder)  # doctest: +SKIP
    """
    others = DECODERS.setdefault(name, [])
    if any(_takes(other) == _takes(decoder) for other in others):
        raise InputError(f"decoder {name!r} is already registered")
    others.append(decoder)


def discover() -> None:
    """Import the decoders of installed packages."""
    load_plugins(ENTRY_POINTS)


def find_decoder(name: str, encoder: Encoder, architecture: str) -> type[Decoder]:
    """Return the decoder of a name that fits an encoder.

    Args:
        name: registered name, or dotted path of a class of the user.
        encoder: whose features are decoded.
        architecture: name of the encoder, for messages.

    Raises:
        InputError: an unknown decoder, or one for another kind, dimension or stride of features.
    """
    strides = {info.stride for info in encoder.feature_info}
    is_decodable = encoder.kind == "pyramid" or strides == {encoder.input_spec.divisor}
    fitting = [decoder for decoder in _of_name(name) if _fits(decoder, encoder)]
    if is_decodable and fitting:
        return fitting[0]
    allowed = [other for other in DECODERS if fits(other, encoder)]
    takes = " or ".join(f"{form.spatial_dims}-D {form.kind}" for form in _of_name(name))
    raise InputError(
        f"encoder {architecture} is {encoder.kind}, {encoder.input_spec.spatial_dims}-D, with "
        f"strides {sorted(strides)}; decoder {name} does not fit. Allowed for it: "
        f"{', '.join(allowed) or 'no decoder yet'}; for {name}: {takes}"
        + ("" if encoder.kind == "pyramid" else ONE_STRIDE)
    )


def fits(name: str, encoder: Encoder) -> bool:
    """Whether a decoder of this registered name takes features of the encoder's kind."""
    return any(_fits(form, encoder) for form in DECODERS.get(name, ()))


def check_decoder_options(name: str, decoder: type[Decoder], options: Mapping[str, Any]) -> None:
    """Check that a decoder takes options of these names.

    Raises:
        InputError: an unknown option; the allowed ones are named.
    """
    parameters = list(signature(decoder).parameters.values())[GIVEN_ALWAYS:]
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return
    allowed = {parameter.name for parameter in parameters}
    for option in options:
        if option not in allowed:
            hint = f"decoder {name} takes {', '.join(sorted(allowed)) or 'no options'}"
            raise InputError(f"{unknown('decoder option', option, allowed)} {hint}")


def check_tokens(name: str, decoder: type[Decoder], tokens: bool) -> None:
    """Check that a decoder has what it needs.

    Raises:
        InputError: a decoder of features alone, without them.
    """
    if not tokens and decoder.needs_features:
        without = [n for n, forms in DECODERS.items() if not forms[0].needs_features]
        raise InputError(
            f"tokens off with decoder {name}, which needs features; allowed: --decoder "
            f"{' or '.join(without)}"
        )


def _of_name(name: str) -> list[type[Decoder]]:
    """Return the decoders of a name.

    Raises:
        InputError: there is none, or the dotted path is of another class.
    """
    if name in DECODERS:
        return DECODERS[name]
    found = find_class(name)
    if found is None:
        raise InputError(unknown("decoder", name, DECODERS, HINT))
    if not issubclass(found, Decoder) or not hasattr(found, "kind"):
        raise InputError(
            f"decoder {name} is no subclass of nnunet_fm.network.decoders.Decoder that declares "
            "spatial_dims and kind"
        )
    return [found]


def _takes(decoder: type[Decoder]) -> tuple[int, str]:
    return decoder.spatial_dims, decoder.kind


def _fits(decoder: type[Decoder], encoder: Encoder) -> bool:
    return _takes(decoder) == (encoder.input_spec.spatial_dims, encoder.kind)
