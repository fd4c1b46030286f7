"""Any network of timm with maps of several resolutions as an encoder, and the names `timm/NAME`."""

import copy
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models import group_parameters, model_entrypoint
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nnunet_fm.encoders.contract import Encoder, FeatureInfo, InputSpec, check_sides
from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm.encoders.key_format import Converted, KeyFormat
from nnunet_fm.encoders.registry import Architecture, register_namespace
from nnunet_fm.encoders.taps import checked_taps
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

OWN = "network."  # before timm's names
PROBE = (2, 3)  # sides of the image on which maps are measured, in cells of the coarsest map
ALLOWED = (
    "allowed: plain ViTs, and networks that take images of any size and give maps of several "
    "resolutions, e.g. timm/convnext_tiny, timm/resnet50, timm/swin_tiny_patch4_window7_224"
)


class TimmPyramid(Encoder):
    """A timm network with `forward_intermediates` and `feature_info`, without its classifier.

    The maps are what its stages return, without a final norm, as timm's `features_only` gives them.
    Their channels and strides are measured on a small image, since timm's table of them is wrong
    for some networks.

    Args:
        model: timm's architecture name, e.g. `convnext_tiny`.
        taps: numbers of the maps that are returned, 0-based, increasing; the last one of each
            resolution if None.
        **arguments: passed to timm's constructor (`in_chans`, `drop_path_rate`, ...).

    Raises:
        InputError: the name is unknown; the network gives no intermediate maps, maps of one
            resolution only, or takes images of one size only; or a tap lies outside the maps.

    Example:
        >>> import torch
        >>> encoder = TimmPyramid("resnet18", taps=(1, 4)).eval()
        >>> [tuple(m.shape) for m in encoder.features(torch.zeros(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 512, 2, 2)]
    """

    kind = "pyramid"

    def __init__(self, model: str, taps: Sequence[int] | None = None, **arguments: Any) -> None:
        super().__init__()
        self.network = _create(model, arguments)
        channels, *native = self.network.default_cfg["input_size"]
        self.in_channels = arguments.get("in_chans", channels)
        maps = _measured(self.network, model, self.in_channels)
        strides = [info.stride for info in maps]
        last_of_each = [n for n, stride in enumerate(strides) if stride not in strides[n + 1 :]]
        self.taps = checked_taps(taps, len(maps), last_of_each)
        self.feature_info = [maps[n] for n in self.taps]
        self.input_spec = InputSpec(2, divisor=max(strides), native_size=tuple(native))

    @staticmethod
    def passed_on(model: str) -> tuple[type[nn.Module], ...]:
        """Return the classes that take `arguments`, for messages about unknown options."""
        return network_classes(model)

    def features(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b d th tw"]]:
        """Return the tapped maps.

        Raises:
            InputError: a side of the input is not a multiple of the largest stride.
        """
        check_sides(x.shape[2:], self.input_spec.divisor, "largest stride")
        maps: list[Tensor] = self.run_block(
            self.network.forward_intermediates,
            x,
            indices=list(self.taps),
            stop_early=True,
            intermediates_only=True,
        )
        return maps

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return what timm passes to the classifier: the last map, pooled and normed its way."""
        vectors: Tensor = self.network.forward_head(
            self.network.forward_features(x), pre_logits=True
        )
        return vectors

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that the tapped maps depend on.

        A copy without content, which costs no memory, tells them by its gradients.
        """
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        empty = {id(p): mode.from_tensor(p).requires_grad_() for p in self.parameters()}
        buffers = {id(b): mode.from_tensor(b) for b in self.buffers()}
        pretended = copy.deepcopy(self, {**empty, **buffers}).eval()
        pretended.set_gradient_checkpointing(False)
        size = [n * self.input_spec.divisor for n in PROBE]
        device = next(self.parameters()).device
        with mode, torch.enable_grad():
            maps = pretended.features(torch.zeros(1, self.in_channels, *size, device=device))
            torch.stack([each.sum() for each in maps]).sum().backward()
        return (p for p in self.parameters() if empty[id(p)].grad is not None)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the stem, each stage, and what comes after them, by timm's group matcher."""
        matcher = self.network.group_matcher(coarse=True)
        stages = matcher["blocks"]
        if not isinstance(stages, str):  # timm adds the final norm to the last stage
            stages = [(pattern, place) for pattern, place in stages if place is None]
        names = group_parameters(self.network, {"stem": matcher["stem"], "blocks": stages})
        parameters = dict(self.network.named_parameters())
        groups = [[parameters[name] for name in names[layer]] for layer in sorted(names)]
        patterns = [stages] if isinstance(stages, str) else [pattern for pattern, _ in stages]
        last = names[max(names)][0]
        return [*groups, []] if any(re.match(p, last) for p in patterns) else groups

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute the network in the backward pass, stage by stage where timm offers that."""
        super().set_gradient_checkpointing(enabled)
        with suppress(AssertionError):  # of networks that timm cannot divide: recomputed as a whole
            self.network.set_grad_checkpointing(enabled)

    def set_fused_attention(self, enabled: bool) -> None:
        """Use torch's fused attention, in networks that have attention."""
        for module in self.network.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = enabled


def network_classes(model: str) -> tuple[type[nn.Module], ...]:
    """Return the networks with intermediate maps in the module of timm that builds a model.

    Raises:
        InputError: timm has no such model; close matches are named.
    """
    if not timm.is_model(model):
        raise InputError(unknown("timm model", model, timm.list_models()))
    module = sys.modules[model_entrypoint(model).__module__]
    classes = [found for found in vars(module).values() if inspect.isclass(found)]
    networks = [found for found in classes if issubclass(found, nn.Module)]
    return tuple(found for found in networks if hasattr(found, "forward_intermediates"))


def _create(model: str, arguments: Mapping[str, Any]) -> Any:
    """Build timm's network for images of any size, checked to give intermediate maps."""
    classes = network_classes(model)
    sizes = {}
    if any("strict_img_size" in inspect.signature(found).parameters for found in classes):
        sizes["strict_img_size"] = False
    try:
        network = timm.create_model(
            model, pretrained=False, num_classes=0, **{**sizes, **arguments}
        )
    except TypeError as error:
        raise InputError(f"timm model {model!r} cannot be built: {error}") from error
    if not isinstance(network, classes):
        raise InputError(
            f"timm model {model!r} is a {type(network).__name__}, which gives no intermediate "
            f"maps; {ALLOWED}"
        )
    return network


def _measured(network: Any, model: str, channels: int) -> list[FeatureInfo]:
    """Return the channels and strides of all maps of a small image.

    Raises:
        InputError: the network does not take the image, or the maps are not those of a pyramid.
    """
    side = max(declared["reduction"] for declared in network.feature_info)
    height, width = (cells * side for cells in PROBE)
    network.eval()
    try:
        with torch.no_grad():
            maps = network.forward_intermediates(
                torch.zeros(1, channels, height, width), intermediates_only=True
            )
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"timm model {model!r} does not take an image of {height}x{width} pixels ({reason}); "
            f"{ALLOWED}"
        ) from error
    network.train()
    strides = [(height / found.shape[2], width / found.shape[3]) for found in maps]
    if len(set(strides)) == 1 or not all(_is_power_of_two(*stride) for stride in strides):
        shown = ", ".join(dict.fromkeys(f"{rows:g}" for rows, _ in strides))
        raise InputError(f"timm model {model!r} gives maps of stride {shown}; {ALLOWED}")
    return [
        FeatureInfo(found.shape[1], int(rows), declared["module"])
        for found, (rows, _), declared in zip(maps, strides, network.feature_info, strict=True)
    ]


def _is_power_of_two(rows: float, columns: float) -> bool:
    return rows == columns and rows.is_integer() and int(rows).bit_count() == 1


def names_of_timm(encoder: Encoder) -> KeyFormat:
    """Return the format of files of timm's network, and of this project's own (`network.`)."""
    network: Any = encoder.network
    names = network.state_dict().keys()
    classifier = network.default_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)

    def matches(state: Mapping[str, Tensor]) -> bool:
        return any(key.removeprefix(OWN) in names for key in state)

    def convert(state: Mapping[str, Tensor]) -> Converted:
        result = Converted({})
        for key, value in state.items():
            name = key.removeprefix(OWN)
            if name not in names and name.startswith(tuple(f"{head}." for head in heads)):
                result.dropped[key] = "classifier"
            else:
                result.tensors[f"{OWN}{name}"] = value
        return result

    return KeyFormat("timm, by the names of its network", matches, convert)


def timm_architecture(model: str) -> Architecture:
    """Return `timm/NAME`: a plain ViT as tokens, any other network as a pyramid.

    Raises:
        InputError: timm has no such model.
    """
    name = f"timm/{model}"
    if any(issubclass(found, VisionTransformer | Eva) for found in network_classes(model)):
        return Architecture(name, partial(TimmViT, model))
    return Architecture(name, partial(TimmPyramid, model), key_format=names_of_timm)


register_namespace("timm/", timm_architecture)
