"""Any plain vision transformer of timm as an encoder."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import timm
from jaxtyping import Float
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from nnunet_fm.encoders.contract import FeatureInfo, InputSpec, check_sides
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown


def default_taps(depth: int) -> tuple[int, ...]:
    """Last block of each quarter: 2, 5, 8, 11 for depth 12 (BrainDINO, paper section 4.3.1)."""
    return tuple(max(0, round(depth * quarter / 4) - 1) for quarter in (1, 2, 3, 4))


class TimmViT(nn.Module):
    """A timm `VisionTransformer` or `Eva`, without its classification head.

    Args:
        model: timm's architecture name, e.g. `vit_small_patch16_224`.
        taps: indices of the blocks whose output is given, 0-based, increasing; each goes through
            the final norm.
        image_size: side of the square that a learned position embedding is stored for; timm's
            default if None.
        **arguments: passed to timm's constructor (`embed_dim`, `depth`, `drop_path_rate`, ...).

    Raises:
        ValueError: the name is unknown or no plain ViT, or a tap lies outside the blocks.
    """

    kind: Literal["tokens", "pyramid"] = "tokens"

    def __init__(
        self,
        model: str,
        taps: Sequence[int] | None = None,
        image_size: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if not timm.is_model(model):
            raise InputError(unknown("timm model", model, timm.list_models("vit_*")))
        if image_size is not None:
            arguments["img_size"] = image_size
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
            raise InputError(
                f"timm model {model!r} cannot be built as a plain ViT: {error}"
            ) from error
        if not isinstance(vit, VisionTransformer | Eva):
            raise InputError(
                f"timm model {model!r} is a {type(vit).__name__}; allowed: VisionTransformer, Eva"
            )
        self.vit = vit
        self.taps = checked_taps(taps, len(vit.blocks), default_taps(len(vit.blocks)))
        patch = vit.patch_embed.patch_size[0]
        size = vit.patch_embed.img_size or (256, 256)
        self.in_channels: int = vit.patch_embed.proj.in_channels
        self.width: int = vit.embed_dim
        self.input_spec = InputSpec(spatial_dims=2, divisor=patch, native_size=tuple(size))
        self.feature_info = [FeatureInfo(self.width, patch, f"blocks.{i}") for i in self.taps]

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return len(self.vit.blocks)

    def features(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b d th tw"]]:
        """Patch tokens of the tapped blocks after the final norm, as feature maps (a view, no copy)."""
        patch = self.input_spec.divisor
        check_sides(x.shape[2:], patch, "patch size")
        grid = (x.shape[-2] // patch, x.shape[-1] // patch)
        tokens = self.vit.forward_intermediates(
            x,
            indices=list(self.taps),
            norm=True,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return [t.transpose(1, 2).unflatten(2, grid) for t in tokens]

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The CLS token after the final norm; the mean patch token if the model has no CLS token."""
        tokens: Tensor = self.vit.forward_features(x)
        return tokens[:, 0] if self.vit.cls_token is not None else tokens.mean(1)

    def embed_taps(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b d"]]:
        """What `embed` gives, of each tapped block, after the final norm."""
        tokens = self.vit.forward_intermediates(
            x,
            indices=list(self.taps),
            norm=True,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
            return_prefix_tokens=True,
        )
        has_cls = self.vit.cls_token is not None
        return [prefix[:, 0] if has_cls else patches.mean(1) for patches, prefix in tokens]

    def parameters_in_use(self) -> Iterator[nn.Parameter]:
        """The parameters that reach the features: not those of blocks above the last tap, nor a mask token."""
        return parameters_without(self.vit, self.vit.blocks[self.taps[-1] + 1 :])

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.vit.set_grad_checkpointing(enabled)

    def set_fused_attention(self, enabled: bool) -> None:
        """Torch's fused attention: fast on GPUs; on CPUs its backward pass is slower than plain products."""
        for block in self.vit.blocks:
            block.attn.fused_attn = enabled


def checked_taps(taps: Sequence[int] | None, depth: int, default: Sequence[int]) -> tuple[int, ...]:
    """Increasing numbers of blocks; the default if None.

    Raises:
        ValueError: others.
    """
    chosen = tuple(default) if taps is None else tuple(int(t) for t in taps)
    if not chosen or any(not 0 <= t < depth for t in chosen) or list(chosen) != sorted(set(chosen)):
        raise InputError(
            f"taps {list(chosen)}: allowed are increasing block numbers from 0 to {depth - 1}, e.g. {list(default)}"
        )
    return chosen


def parameters_without(module: nn.Module, parts: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """The parameters of a module but those of some of its parts."""
    left_out = {id(p) for part in parts for p in part.parameters()}
    return (p for p in module.parameters() if id(p) not in left_out)
