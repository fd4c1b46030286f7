"""Weight cards: what is known of each published checkpoint, as data."""

from pathlib import Path
from typing import Any

from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.encoders.families.volume_cards import PROJECTORS, volume_cards
from nnunet_fm.encoders.registry import ARCHITECTURES, own_class
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.folders import folder
from nnunet_fm.internal.messages import unknown

TRAINING_CODE = {"norm_eps": 1e-6, "rope": "bfloat16"}
META_RELEASE = {"norm_eps": 1e-5, "rope": "float32_bf16_periods"}


_HEADS = (r"dino_head\..*", r"ibot_head\..*", r"gram_.*", r"dino_loss\..*", r"ibot_patch_loss\..*")
_BRAINDINO_DATA = [
    "ICBM",
    "ID1000",
    "PIOP1",
    "PIOP2",
    "LONG579",
    "ABIDE",
    "PPMI",
    "TCGA-GBM",
    "CPTAC-GBM",
    "GLIS-RT",
    "REMBRANDT",
    "IvyGAP",
    "BraTS2025-GLI-PRE",
    "BraTS2023-PED",
    "BraTS2023-MEN",
    "BraTS2023-SSA",
    "MEN-SEG-CLASS",
    "ReMIND",
    "fastMRI-Brain",
    "ACRIN-DSC-MR-Brain",
    "ACRIN-FMISO-Brain",
]


def _dinov3_cards() -> list[WeightCard]:
    meta = [
        ("vits16", "lvd1689m"),
        ("vits16plus", "lvd1689m"),
        ("vitb16", "lvd1689m"),
        ("vitl16", "lvd1689m"),
    ]
    meta += [("vitl16", "sat493m"), ("vith16plus", "lvd1689m")]
    cards = [
        WeightCard(
            name=f"dinov3_{arch}.{tag}",
            architecture=f"dinov3_{arch}",
            options=META_RELEASE,
            licence="DINOv3 License",
            source="https://ai.meta.com/resources/models-and-libraries/dinov3-downloads",
            pretrained_on=(tag.upper(),),
            citation="arXiv:2508.10104",
            allowed_missing=("mask_token",),  # timm's and some transformers files leave it out
        )
        for arch, tag in meta
    ]
    for arch in [a for a in ARCHITECTURES if a.startswith("dinov3_")]:
        cards.append(
            WeightCard(
                name=f"{arch}.trained",
                architecture=arch,
                source="any checkpoint written by the DINOv3 training code or by this project",
                licence="as its author says",
                options=TRAINING_CODE,
                ignored=_HEADS,
            )
        )
    return cards


def _medical_cards() -> list[WeightCard]:
    common: dict[str, Any] = {
        "architecture": "dinov3_vitb16",
        "options": TRAINING_CODE,
        "ignored": _HEADS,
    }
    return [
        WeightCard(
            name="braindino_vitb16.mri6m",
            licence="weights not released (2026-04)",
            source="the authors of arXiv:2604.27277",
            pretrained_on=tuple(_BRAINDINO_DATA),
            citation="arXiv:2604.27277",
            **common,
        ),
        WeightCard(
            name="meddinov3_vitb16.ct3m",
            licence="Apache-2.0 as stated on its page; derived from the DINOv3 code",
            source="https://github.com/ricklisz/MedDINOv3",
            pretrained_on=("CT-3M",),
            citation="arXiv:2509.02379",
            **common,
        ),
        WeightCard(
            name="flexict_vitb16.ct",
            licence="MIT as stated by its repository; derived from the DINOv3 code",
            source="the FlexiCT repository",
            pretrained_on=("CT, see its paper",),
            **common,
        ),
    ]


def _dinov2_cards() -> list[WeightCard]:
    return [
        WeightCard(
            name=f"{arch}.lvd142m",
            architecture=arch,
            licence="Apache-2.0",
            source="https://github.com/facebookresearch/dinov2",
            pretrained_on=("LVD142M",),
            citation="arXiv:2304.07193",
            ignored=("mask_token",),
        )
        for arch in ARCHITECTURES
        if arch.startswith("dinov2_vit")
    ]


def _shipped_cards() -> list[WeightCard]:
    return [
        WeightCard(
            name="synth_vitt16.v1",
            architecture="dinov3_vitt16",
            options=TRAINING_CODE,
            licence="Apache-2.0, as this package",
            source="comes with this package; made by the recipe synth_vitt16",
            pretrained_on=("brains made by nnunet-fm",),
            shipped="synth_vitt16.v1.safetensors",
        )
    ]


CARDS: dict[str, WeightCard] = {
    c.name: c
    for c in [
        *_shipped_cards(),
        *_dinov3_cards(),
        *_medical_cards(),
        *_dinov2_cards(),
        *volume_cards(),
    ]
}


def shipped_weights(name: str) -> tuple[Path, WeightCard] | None:
    """File and card of weights that come with this package, named in full or without the part behind the dot."""
    for card in CARDS.values():
        if card.shipped and name in (card.name, card.name.split(".")[0]):
            return folder("weights") / card.shipped, card
    return None


def get_card(name: str) -> WeightCard:
    """The card called `name`, or `family_arch` of the only card that begins so (`braindino_vitb16`).

    An architecture, `timm/NAME` or a class of the user's gives a bare card: no published weights,
    default options.

    Raises:
        ValueError: unknown name; close matches are named.
    """
    if name in CARDS:
        return CARDS[name]
    if name in ARCHITECTURES or name.startswith("timm/") or own_class(name):
        families = {"dinov3_": _HEADS, "brainiac_": PROJECTORS, "volume_": PROJECTORS}
        ignored = next((keys for family, keys in families.items() if name.startswith(family)), ())
        return WeightCard(
            name=name, architecture=name, licence="as its author says", source="", ignored=ignored
        )
    tagged = [c for c in CARDS.values() if c.name.split(".")[0] == name]
    if len(tagged) == 1:
        return tagged[0]
    hint = (
        "See `nnunet-fm encoders list`. Any plain ViT of timm: timm/NAME. A file: its path. "
        "A class of yours: its importable dotted path."
    )
    raise InputError(unknown("encoder", name, [*CARDS, *ARCHITECTURES], hint))


def intensity_of(encoder: Encoder, card: str) -> str:
    """Intensity convention of an encoder's pretraining: its card's, or its architecture's usual one."""
    known = CARDS.get(card)
    return (known.intensity if known else None) or encoder.input_spec.intensity
