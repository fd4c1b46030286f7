"""Any plain vision transformer of timm as an encoder: `timm/NAME`, see `timm_pyramid`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import timm
from jaxtyping import Float
from timm.models import group_parameters
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from nnunet_fm.encoders.contract import (
    Encoder,
    FeatureInfo,
    InputSpec,
    check_sides,
    parameters_without,
)
from nnunet_fm.encoders.key_format import Converted, KeyFormat
from nnunet_fm.encoders.registry import register_key_format
from nnunet_fm.encoders.taps import checked_taps, default_taps
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown


class TimmViT(Encoder):
    """A timm `VisionTransformer` or `Eva`, without its classification head.

    Args:
        model: timm's architecture name, e.g. `vit_small_patch16_224`.
        taps: indices of the blocks whose output is returned, 0-based, increasing; each goes through
            the final norm.
        image_size: side of the square that a learned position embedding is stored for; timm's
            default if None.
        **arguments: passed to timm's constructor (`embed_dim`, `depth`, `drop_path_rate`, ...).

    Raises:
        InputError: the name is unknown or not a plain ViT, or a tap lies outside the blocks.

    Example:
        >>> import torch
        >>> encoder = TimmViT("vit_tiny_patch16_224", taps=(5, 11)).eval()
        >>> [tuple(m.shape) for m in encoder.features(torch.zeros(1, 3, 64, 64))]
        [(1, 192, 4, 4), (1, 192, 4, 4)]
    """

    kind = "tokens"
    passed_on: ClassVar[tuple[type, ...]] = (VisionTransformer, Eva)  # take `arguments`

    def __init__(
        self,
        model: str,
        taps: Sequence[int] | None = None,
        image_size: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if image_size is not None:
            arguments["img_size"] = image_size
        self.vit = _create(model, arguments)
        self.depth = len(self.vit.blocks)
        self.taps = checked_taps(taps, self.depth, default_taps(self.depth))
        patch = self.vit.patch_embed.patch_size[0]
        size = self.vit.patch_embed.img_size or (256, 256)
        self.in_channels = self.vit.patch_embed.proj.in_channels
        self.width: int = self.vit.embed_dim
        self.input_spec = InputSpec(spatial_dims=2, divisor=patch, native_size=tuple(size))
        self.feature_info = [FeatureInfo(self.width, patch, f"blocks.{i}") for i in self.taps]

    def features(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b d th tw"]]:
        """Return the patch tokens of the tapped blocks after the final norm, as maps (a view).

        Raises:
            InputError: a side of the input is not a multiple of the patch.
        """
        patch = self.input_spec.divisor
        check_sides(x.shape[2:], patch, "patch size")
        grid = (x.shape[-2] // patch, x.shape[-1] // patch)
        tokens = self._intermediates(x)
        return [t.transpose(1, 2).unflatten(2, grid) for t in tokens]

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the CLS token after the final norm; the mean patch token if there is no CLS."""
        tokens: Tensor = self.vit.forward_features(x)
        return tokens[:, 0] if self.vit.cls_token is not None else tokens.mean(1)

    @property
    def embedded_layers(self) -> tuple[int, ...]:
        """The tapped blocks."""
        return self.taps

    def embed_taps(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b d"]]:
        """Return what `embed` returns, for each tapped block, after the final norm."""
        tokens = self._intermediates(x, return_prefix_tokens=True)
        has_cls = self.vit.cls_token is not None
        return [prefix[:, 0] if has_cls else patches.mean(1) for patches, prefix in tokens]

    def _intermediates(self, x: Tensor, **options: bool) -> list[Any]:
        return self.vit.forward_intermediates(
            x,
            indices=list(self.taps),
            norm=True,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
            **options,
        )

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters except those of blocks above the last tap, and a mask token."""
        return parameters_without(self.vit, self.vit.blocks[self.taps[-1] + 1 :])

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return embeddings and tokens, each block, and the final norm, by timm's group matcher."""
        # timm's stem lacks two modules, and its final norm joins the last block.
        stem = rf"(?:{self.vit.group_matcher()['stem']})|^reg_token|^norm_pre\."
        blocks = [(r"^blocks\.(\d+)", None), (r"^norm\.", (self.depth,))]
        matcher = {"stem": stem, "blocks": blocks}
        names = group_parameters(self.vit, matcher, reverse=False)
        parameters = dict(self.vit.named_parameters())
        groups = [[parameters[name] for name in names[layer]] for layer in sorted(names)]
        outside = [p for name, p in self.named_parameters() if not name.startswith("vit.")]
        return [[*groups[0], *outside], *groups[1:]]

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        super().set_gradient_checkpointing(enabled)
        self.vit.set_grad_checkpointing(enabled)

    def set_fused_attention(self, enabled: bool) -> None:
        """Use torch's fused attention; on CPUs its backward pass is slower than plain products."""
        for block in self.vit.blocks:
            block.attn.fused_attn = enabled


def _create(model: str, arguments: Mapping[str, Any]) -> Any:
    """Build timm's network, checked to be a plain ViT."""
    if not timm.is_model(model):
        raise InputError(unknown("timm model", model, timm.list_models("vit_*")))
    try:
        vit = timm.create_model(
            model,
            pretrained=False,
            num_classes=0,
            global_pool="",
            dynamic_img_size=True,
            **arguments,
        )
    except TypeError as error:
        raise InputError(f"timm model {model!r} cannot be built as a plain ViT: {error}") from error
    if not isinstance(vit, VisionTransformer | Eva):
        raise InputError(
            f"timm model {model!r} is a {type(vit).__name__}; allowed: VisionTransformer, Eva"
        )
    return vit


def from_timm(state: Mapping[str, Tensor]) -> Converted:
    """Convert timm's names; this project's own, which start with `vit.`, stay as they are."""
    if any(key.startswith("vit.") for key in state):
        return Converted(dict(state))
    tensors = {key if key == "mask_token" else f"vit.{key}": v for key, v in state.items()}
    dropped = {key: "classification head" for key in tensors if key.startswith("vit.head.")}
    kept = {key: value for key, value in tensors.items() if key not in dropped}
    return Converted(kept, dropped)


def _is_own(state: Mapping[str, Tensor]) -> bool:
    return "vit.patch_embed.proj.weight" in state


def _is_timm(state: Mapping[str, Tensor]) -> bool:
    return "patch_embed.proj.weight" in state


register_key_format(KeyFormat("nnunet-fm", _is_own, from_timm))
register_key_format(KeyFormat("timm", _is_timm, from_timm, generic=True))
