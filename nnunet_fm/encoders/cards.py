"""Weight cards: what is known of each published checkpoint, as data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_fm.encoders.registry import ARCHITECTURES, own_class
from nnunet_fm.folders import folder
from nnunet_fm.messages import unknown

TRAINING_CODE = {"norm_eps": 1e-6, "rope": "bfloat16"}
META_RELEASE = {"norm_eps": 1e-5, "rope": "float32_bf16_periods"}


@dataclass(frozen=True)
class WeightCard:
    """One checkpoint that people use.

    Attributes:
        name: `family_arch.weights`.
        architecture: name in the table of architectures.
        options: numerical options that the weights need (LayerNorm epsilon, rotary precision, qkv bias).
        licence: licence of the weights, not of the code.
        source: where to get them.
        pretrained_on: datasets seen in pretraining; to be kept apart from the data at hand.
        citation: arXiv number or DOI of the paper.
        sha256: of the published file, where known.
        allowed_missing: tensors that the file may lack; they keep their initial value.
        ignored: regular expressions of keys that the file may carry beside the encoder.
        shipped: file in the folder `weights`, for weights that come with this package.
        spatial_dims: 2 for slices, 3 for volumes.
    """

    name: str
    architecture: str
    licence: str
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    pretrained_on: tuple[str, ...] = ()
    citation: str = ""
    sha256: str | None = None
    allowed_missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    shipped: str | None = None
    spatial_dims: int = 2


_HEADS = (r"dino_head\..*", r"ibot_head\..*", r"gram_.*", r"dino_loss\..*", r"ibot_patch_loss\..*")
_PROJECTORS = (r"(projector|projection|projection_head|proj_head)\..*",)  # of contrastive pretraining
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
    meta = [("vits16", "lvd1689m"), ("vits16plus", "lvd1689m"), ("vitb16", "lvd1689m"), ("vitl16", "lvd1689m")]
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
    common: dict[str, Any] = {"architecture": "dinov3_vitb16", "options": TRAINING_CODE, "ignored": _HEADS}
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


_BRATS2021 = ("BraTS2021",)


def _brainsegfounder_cards() -> list[WeightCard]:
    """Swin transformers on several channels; which sequence each is, the files do not say."""
    cohorts = {
        "ukb": (("T1", "T2"), ("UK-Biobank",)),
        "brats": (("FLAIR", "T1c", "T1", "T2"), ("UK-Biobank", "BraTS2021")),
        "atlas": (("T1", "T1"), ("UK-Biobank", "ATLAS-v2")),
    }
    return [
        WeightCard(
            name=f"brainsegfounder_swin48.{tag}",
            architecture="swin_unetr48",
            options={"legacy_merging": True, "modalities": list(modalities)},
            licence="UK Biobank MTA, as its page is tagged; code GPL-3.0",
            source=f"model_weights_{tag.upper()}-pretrain.pt of https://huggingface.co/smilelab/BrainSegFounder",
            pretrained_on=seen,
            citation="arXiv:2406.10395",
            spatial_dims=3,
        )
        for tag, (modalities, seen) in cohorts.items()
    ]


def _openmind_cards() -> list[WeightCard]:
    """ResEnc-L and Primus-M; all methods but SimMIM saw Primus' tokens with the first two axes exchanged."""
    common: dict[str, Any] = {
        "licence": "CC BY 4.0 (as its card says)",
        "pretrained_on": ("OpenMind (114k head and neck MRI of OpenNeuro)",),
        "citation": "arXiv:2412.17041",
        "spatial_dims": 3,
    }
    source = "checkpoint_final.pth of https://huggingface.co/MIC-DKFZ"
    return [
        WeightCard(
            name="openmind_resencl.mae",
            architecture="openmind_resencl",
            source=f"{source}/ResEncL-OpenMind-MAE (and -VF, -VoCo, ...)",
            **common,
        ),
        *(
            WeightCard(
                name=f"openmind_primusm.{tag}",
                architecture="openmind_primusm",
                options={"token_order": order},
                source=f"{source}/PrimusM-OpenMind-{method}",
                **common,
            )
            for tag, order, method in (("mae", "hwd", "MAE (and -VF, -VoCo, ...)"), ("simmim", "whd", "SimMIM"))
        ),
    ]


def _volume_cards() -> list[WeightCard]:
    return [
        *_brainsegfounder_cards(),
        *_openmind_cards(),
        *(
            WeightCard(
                name=f"bmmae_vitb16.{tag}",
                architecture="bmmae_vitb16",
                licence="none found",
                source=f"{file} of https://huggingface.co/luklebigboss/BM-MAE",
                pretrained_on=seen,
                citation="arXiv:2505.00568",
                spatial_dims=3,
            )
            for tag, file, seen in (
                ("brats2021", "bmmae.pth", _BRATS2021),
                ("notcga", "bmmae_tcga.pth", ("BraTS2021", "all but TCGA")),
            )
        ),
        WeightCard(
            name="brainmvp_uniformer.mri16k",
            architecture="brainmvp_uniformer",
            licence="none found",
            source="BrainMVP_uniformer.pt of the authors, https://github.com/shaohao011/BrainMVP",
            pretrained_on=("BraTS2021", "BraTS2023-SSA", "BraTS2023-MEN", "and others, see its paper"),
            citation="arXiv:2410.10604",
            spatial_dims=3,
        ),
        WeightCard(
            name="brainiac_vitb16.v2",
            architecture="brainiac_vitb16",
            licence="non-commercial academic research only (Mass General Brigham)",
            source="BrainIAC.ckpt of the authors, https://github.com/AIM-KannLab/BrainIAC",
            pretrained_on=("brain MRI of many cohorts, see its paper",),
            citation="10.1038/s41593-026-02202-6",
            ignored=_PROJECTORS,
            spatial_dims=3,
        ),
        WeightCard(
            name="volta3d_vitb16.t1",
            architecture="brainiac_vitb16",  # the same transformer
            licence="not released",
            source="no release was found; a state dict of MONAI's ViTAutoEnc fits",
            pretrained_on=("T1-weighted MRI, see its paper",),
            spatial_dims=3,
        ),
        WeightCard(
            name="swin_unetr48.ct5050",
            architecture="swin_unetr48",
            options={"legacy_merging": True},
            licence="Apache-2.0 (MONAI research contributions)",
            source="model_swinvit.pt of https://github.com/Project-MONAI/MONAI-extra-test-data",
            pretrained_on=("5,050 CT volumes",),
            citation="arXiv:2111.14791",
            spatial_dims=3,
        ),
        *(
            WeightCard(
                name=f"amaes_{size}.brains45k",
                architecture=f"amaes_{size}",
                licence="not stated in the repository",
                source=f"{file} of https://zenodo.org/records/13604788",
                pretrained_on=("BRAINS-45K, see its paper",),
                citation="arXiv:2408.00640",
                spatial_dims=3,
            )
            for size, file in (("unetb", "unet_b_lw_dec_fullaug.pth"), ("unetxl", "unet_xl_lw_dec_fullaug.pth"))
        ),
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
    c.name: c for c in [*_shipped_cards(), *_dinov3_cards(), *_medical_cards(), *_dinov2_cards(), *_volume_cards()]
}


def shipped_weights(name: str) -> tuple[Path, WeightCard] | None:
    """File and card of weights that come with this package, named in full or without the part behind the dot."""
    for card in CARDS.values():
        if card.shipped and name in (card.name, card.name.split(".")[0]):
            return folder("weights") / card.shipped, card
    return None


def get_card(name: str) -> WeightCard:
    """The card called `name`, or `family_arch` of the only card that begins so (`braindino_vitb16`).

    An architecture, `timm/NAME` or a class of the user's gives a bare card: no published weights, default options.

    Raises:
        ValueError: unknown name; close matches are named.
    """
    if name in CARDS:
        return CARDS[name]
    if name in ARCHITECTURES or name.startswith("timm/") or own_class(name):
        families = {"dinov3_": _HEADS, "brainiac_": _PROJECTORS, "volume_": _PROJECTORS}
        ignored = next((keys for family, keys in families.items() if name.startswith(family)), ())
        return WeightCard(name=name, architecture=name, licence="as its author says", source="", ignored=ignored)
    tagged = [c for c in CARDS.values() if c.name.split(".")[0] == name]
    if len(tagged) == 1:
        return tagged[0]
    hint = (
        "See `nnunet-fm encoders list`. Any plain ViT of timm: timm/NAME. A file: its path. "
        "A class of yours: its importable dotted path."
    )
    raise ValueError(unknown("encoder", name, [*CARDS, *ARCHITECTURES], hint))
