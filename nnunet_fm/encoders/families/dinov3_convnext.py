"""DINOv3 ConvNeXt (arXiv:2508.10104), distilled from the ViT-7B, through timm's ConvNeXt.

Files name the tensors in one of three ways: as Meta (facebookresearch/dinov3,
dinov3/models/convnext.py, which are also the names of the first ConvNeXt), timm or transformers.
"""

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from nnunet_fm.encoders.families.dinov3 import PRETRAINING_HEADS
from nnunet_fm.encoders.families.timm_pyramid import OWN, TimmPyramid
from nnunet_fm.encoders.key_format import Converted, KeyFormat, Renames, new_name
from nnunet_fm.encoders.registry import register_architecture, register_cards, register_key_format
from nnunet_fm.encoders.weight_card import OWN as OWN_LICENCE
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError

# sizes, and how the hash of each published file begins
PUBLISHED = {"tiny": "21b726bb", "small": "296db49d", "base": "801f2ba9", "large": "61fa432d"}
FINAL_NORM, ITS_COPY = "norm.", "norms.3."
META: Renames = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
)
TRANSFORMERS: Renames = (
    (r"^stages\.0\.downsample_layers\.", "stem."),
    (r"^stages\.(\d)\.downsample_layers\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.layers\.", r"stages.\1.blocks."),
    (r"\.depthwise_conv\.", ".conv_dw."),
    (r"\.pointwise_conv(\d)\.", r".mlp.fc\1."),
    (r"\.layer_norm\.", ".norm."),
    (r"^layer_norm\.", "head.norm."),
)


class Dinov3ConvNeXt(TimmPyramid):
    """DINOv3's ConvNeXt: four maps of strides 4 to 32, of which the last goes through the norm.

    So do the authors' `get_intermediate_layers`. What they call the CLS token, which `embed`
    returns, is the mean of the last map before the norm, then normed.

    Args:
        model: timm's architecture name, e.g. `convnext_tiny`.
        taps: numbers of the stages, 0 to 3; all if None.
        **arguments: passed to timm's constructor.
    """

    def features(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b d th tw"]]:
        """Return the maps of the tapped stages, the last stage's normed channel by channel.

        Raises:
            InputError: a side of the input is not a multiple of 32.
        """
        maps = super().features(x)
        if self.taps[-1] == len(self.network.stages) - 1:
            maps[-1] = self.network.head.norm(maps[-1])
        return maps


def from_meta(state: Mapping[str, Tensor]) -> Converted:
    """Convert Meta's names. The final norm may be stored twice.

    Raises:
        InputError: the two copies of the final norm differ.
    """
    copies = {key: value for key, value in state.items() if key.startswith(ITS_COPY)}
    for key, value in copies.items():
        original = key.replace(ITS_COPY, FINAL_NORM)
        if original not in state or not torch.equal(state[original], value):
            raise InputError(
                f"{key} differs from {original}, of which it has to be a copy; allowed: files as "
                "they are published, with one final norm. Download the file again"
            )
    converted = _renamed({k: v for k, v in state.items() if k not in copies}, META)
    converted.dropped |= dict.fromkeys(copies, "second copy of the final norm, checked to be equal")
    return converted


def from_transformers(state: Mapping[str, Tensor]) -> Converted:
    """Convert the names of transformers' `DINOv3ConvNextModel`."""
    return _renamed(state, TRANSFORMERS)


def from_timm(state: Mapping[str, Tensor]) -> Converted:
    """Convert timm's names, and this project's own, which are timm's behind `network.`."""
    return _renamed({key.removeprefix(OWN): value for key, value in state.items()}, ())


def _renamed(state: Mapping[str, Tensor], renames: Renames) -> Converted:
    """Rename tensors, drop a classifier, and turn 1x1 convolutions of the MLPs into linear layers.

    timm's `conv_mlp` networks store the same weights as convolutions.
    """
    result = Converted({})
    for key, value in state.items():
        name = new_name(key, renames)
        if name.startswith("head.fc."):
            result.dropped[key] = "classifier"
        elif ".mlp.fc" in name and value.shape[2:] == (1, 1):
            result.tensors[f"{OWN}{name}"] = value.flatten(1)
        else:
            result.tensors[f"{OWN}{name}"] = value
    return result


def _is_meta(state: Mapping[str, Tensor]) -> bool:
    return "downsample_layers.0.0.weight" in state


def _is_transformers(state: Mapping[str, Tensor]) -> bool:
    return "stages.0.downsample_layers.0.weight" in state


def _is_timm(state: Mapping[str, Tensor]) -> bool:
    name = "stages.0.blocks.0.conv_dw.weight"
    return name in state or f"{OWN}{name}" in state


def _published_card(size: str, start_of_hash: str) -> WeightCard:
    name = f"dinov3_convnext_{size}"
    repository = f"dinov3-convnext-{size}-pretrain-lvd1689m"
    return WeightCard(
        name=f"{name}.lvd1689m",
        architecture=name,
        licence="DINOv3 License",
        source="https://ai.meta.com/resources/models-and-libraries/dinov3-downloads",
        hub=f"hf://facebook/{repository}/model.safetensors",
        pretrained_on=("LVD1689M",),
        citation="arXiv:2508.10104",
        ignored=PRETRAINING_HEADS,
        files=(
            f"{name}_pretrain_lvd1689m-{start_of_hash}*",
            f"*/*{repository}*/*",
            f"*/*convnext_{size}.dinov3_lvd1689m*",
        ),
        by_files_alone=True,  # ConvNeXts that were trained on ImageNet have the same tensors
    )


def _register() -> None:
    for size, start_of_hash in PUBLISHED.items():
        name, build = f"dinov3_convnext_{size}", partial(Dinov3ConvNeXt, f"convnext_{size}")
        register_architecture(name, build, PRETRAINING_HEADS)
        register_cards(_published_card(size, start_of_hash))
    test = partial(Dinov3ConvNeXt, "convnext_tiny", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))
    register_architecture("dinov3_convnext_test", test, PRETRAINING_HEADS)
    register_cards(
        WeightCard(
            name="dinov3_convnext_test.trained",
            architecture="dinov3_convnext_test",
            licence=OWN_LICENCE,
            source="any checkpoint of this small network",
            ignored=PRETRAINING_HEADS,
        )
    )
    for key_format in (
        KeyFormat("DINOv3 ConvNeXt", _is_meta, from_meta),
        KeyFormat("transformers DINOv3 ConvNeXt", _is_transformers, from_transformers),
        KeyFormat("timm ConvNeXt", _is_timm, from_timm),
    ):
        register_key_format(key_format)


_register()
