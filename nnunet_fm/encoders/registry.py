"""The table of architectures: a name and the constructor that builds it, with random weights."""

from collections.abc import Callable, Sequence
from functools import partial
from pydoc import locate
from typing import Any, cast

import torch
from torch import Tensor, nn

from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.encoders.families.bmmae import BMMAE
from nnunet_fm.encoders.families.brainiac import VolumeViT
from nnunet_fm.encoders.families.brainmvp import VolumeUniFormer
from nnunet_fm.encoders.families.dinov3 import Dinov3
from nnunet_fm.encoders.families.primus import VolumePrimus
from nnunet_fm.encoders.families.swin_unetr import VolumeSwin
from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm.encoders.families.unet import amaes, resenc
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

Builder = Callable[..., nn.Module]
TIMM_PREFIX = "timm/"
CONTRACT = ("kind", "input_spec", "in_channels", "feature_info", "features", "embed")

ARCHITECTURES: dict[str, Builder] = {}


def register_architecture(name: str, builder: Builder) -> None:
    """Add an encoder: `builder(taps=..., **options)` must give a module that obeys `Encoder`.

    Raises:
        ValueError: the name is taken.
    """
    if name in ARCHITECTURES or name.startswith(TIMM_PREFIX):
        raise InputError(f"architecture {name!r} is already registered")
    ARCHITECTURES[name] = builder


def build_encoder(architecture: str, taps: Sequence[int] | None = None, **options: Any) -> Encoder:
    """Build an encoder with random weights; nothing is read or downloaded.

    Args:
        architecture: a name of the table, `timm/NAME` for any plain ViT of timm, or the dotted path
            of an importable class of yours (`my_package.MyEncoder`) that takes `taps` and obeys
            `Encoder`.
        taps: blocks whose features are given; the last of each quarter if None.
        **options: numerical options of the architecture, as a weight card states them.

    Raises:
        ValueError: unknown architecture (close matches are named) or option.
    """
    if architecture.startswith(TIMM_PREFIX):
        return cast(Encoder, TimmViT(architecture.removeprefix(TIMM_PREFIX), taps, **options))
    builder = ARCHITECTURES.get(architecture) or own_class(architecture)
    if builder is None:
        hint = "Any timm ViT: timm/NAME. A class of yours: its importable dotted path."
        raise InputError(unknown("encoder architecture", architecture, ARCHITECTURES, hint))
    try:
        built = builder(taps=taps, **options)
    except TypeError as error:
        raise InputError(
            f"{architecture} does not take these options {options}: {error}"
        ) from error
    missing = [name for name in CONTRACT if not hasattr(built, name)]
    if missing:
        raise InputError(
            f"encoder {architecture} lacks {', '.join(missing)}; see nnunet_fm.encoders.Encoder"
        )
    return cast(Encoder, built)


def own_class(architecture: str) -> Builder | None:
    """The user's class that a dotted path names, or None if there is no such class."""
    if "." not in architecture or "/" in architecture:
        return None
    found = locate(architecture)
    return (
        cast(Builder, found) if isinstance(found, type) and issubclass(found, nn.Module) else None
    )


def random_state(architecture: str, seed: int, **options: Any) -> dict[str, Tensor]:
    """State dict of the architecture's own random initialisation, a function of `seed` alone.

    The global random generator is left as it was.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        encoder = cast(nn.Module, build_encoder(architecture, **options))
    return encoder.state_dict()


def _register_dinov3() -> None:
    published = {"vits16": "small", "vits16plus": "small_plus", "vitb16": "base", "vitl16": "large"}
    for short, timm_name in {**published, "vith16plus": "huge_plus"}.items():
        register_architecture(f"dinov3_{short}", partial(Dinov3, f"vit_{timm_name}_patch16_dinov3"))
    small = partial(Dinov3, "vit_small_patch16_dinov3")
    register_architecture("dinov3_vitt16", partial(small, embed_dim=192, num_heads=3))
    register_architecture(
        "dinov3_nano8", partial(small, patch_size=8, embed_dim=128, num_heads=2, depth=4)
    )
    register_architecture("dinov3_test16", partial(small, embed_dim=32, num_heads=2, depth=4))


def _register_dinov2() -> None:
    for short, timm_name in {
        "vits14": "small",
        "vitb14": "base",
        "vitl14": "large",
        "vitg14": "giant",
    }.items():
        for ending in ("", "_reg4"):
            register_architecture(
                f"dinov2_{short}{ending}",
                partial(TimmViT, f"vit_{timm_name}_patch14{ending}_dinov2"),
            )
    test = partial(
        TimmViT, "vit_small_patch14_dinov2", embed_dim=32, num_heads=2, depth=4, image_size=56
    )
    register_architecture("dinov2_test14", test)


def _register_volumes() -> None:
    register_architecture("brainiac_vitb16", VolumeViT)
    register_architecture("bmmae_vitb16", BMMAE)
    tiny: dict[str, Any] = {
        "image_size": 48,
        "hidden_size": 24,
        "mlp_dim": 48,
        "depth": 8,
        "num_heads": 2,
    }
    register_architecture("volume_test16", partial(VolumeViT, **tiny))
    register_architecture("volume_testbmmae", partial(BMMAE, **tiny))
    register_architecture("brainmvp_uniformer", VolumeUniFormer)
    register_architecture(
        "volume_testuniformer", partial(VolumeUniFormer, widths=(4, 6, 8, 16), depths=(1, 1, 2, 1))
    )
    register_architecture("swin_unetr48", VolumeSwin)
    register_architecture(
        "volume_testswin", partial(VolumeSwin, width=12, depths=(1, 1, 1, 1), heads=(1, 2, 4, 8))
    )
    register_architecture("openmind_resencl", resenc)
    register_architecture("openmind_primusm", VolumePrimus)
    small: dict[str, Any] = {"image_size": 32, "width": 24, "depth": 4, "num_heads": 2}
    register_architecture("volume_testprimus", partial(VolumePrimus, **small))
    register_architecture("amaes_unetb", partial(amaes, width=32))
    register_architecture("amaes_unetxl", partial(amaes, width=64))
    register_architecture("volume_testpyramid", partial(resenc, widths=(4, 6, 8), blocks=(1, 1, 1)))


_register_dinov3()
_register_dinov2()
_register_volumes()
