"""Weight cards of 3-D encoders."""

from typing import Any

from nnunet_fm.encoders.contract import ZERO_TO_ONE
from nnunet_fm.encoders.weight_card import WeightCard

PROJECTORS = (
    r"(projector|projection|projection_head|proj_head)\..*",
)  # of contrastive pretraining
_CT_WINDOW = "a window of CT (-1000 to 1000) scaled to 0 to 1"
_BRATS2021 = ("BraTS2021", "TCGA-GBM", "TCGA-LGG")  # BraTS holds patients of both collections
_OPENMIND_METHODS = ("MAE", "MG", "VF", "VoCo", "SimCLR", "SwinUNETR", "S3D")


def _brainsegfounder_cards() -> list[WeightCard]:
    """Swin transformers on several channels; which sequence each is, the files do not say."""
    cohorts = {
        "ukb": (
            ("T1", "FLAIR"),
            ("UK-Biobank",),
        ),  # what its code calls T2 is UK Biobank's T2 FLAIR, field 20253
        "brats": (("FLAIR", "T1c", "T1", "T2"), ("UK-Biobank", *_BRATS2021)),
        "atlas": (("T1", "T1"), ("UK-Biobank", "ATLAS-v2")),  # the one channel, doubled
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
            files=(f"model_weights_{tag}-pretrain*",),
            by_files_alone=True,
            intensity=_CT_WINDOW,
        )
        for tag, (modalities, seen) in cohorts.items()
    ]


def _openmind_cards() -> list[WeightCard]:
    """ResEnc-L and Primus-M; all methods but SimMIM saw Primus' tokens with the first two axes exchanged."""
    common: dict[str, Any] = {
        "licence": "CC BY 4.0 (as its card says)",
        "pretrained_on": ("OpenMind", "OpenNeuro"),
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
                source=f"{source}/PrimusM-OpenMind-{methods[0]} (or -{', -'.join(methods[1:])})",
                files=tuple(f"*primusm-openmind-{method}*/*" for method in methods),
                **common,
            )
            for tag, order, methods in (
                ("mae", "hwd", _OPENMIND_METHODS),
                ("simmim", "whd", ("SimMIM",)),
            )
        ),
    ]


def volume_cards() -> list[WeightCard]:
    """All of them."""
    return [
        *_brainsegfounder_cards(),
        *_openmind_cards(),
        *(
            WeightCard(
                name=f"bmmae_vitb16.{tag}",
                architecture="bmmae_vitb16",
                licence="none found",
                source=f"{file} of https://huggingface.co/luklebigboss/BM-MAE",
                files=(file,),
                pretrained_on=seen,
                citation="arXiv:2505.00568",
                spatial_dims=3,
            )
            for tag, file, seen in (
                ("brats2021", "bmmae.pth", _BRATS2021),
                ("notcga", "bmmae_tcga.pth", _BRATS2021[:1]),
            )
        ),
        WeightCard(
            name="brainmvp_uniformer.mri16k",
            architecture="brainmvp_uniformer",
            licence="none found",
            source="BrainMVP_uniformer.pt of the authors, https://github.com/shaohao011/BrainMVP",
            pretrained_on=(*_BRATS2021, "BraTS2023-SSA", "BraTS2023-MEN", "others, see its paper"),
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
            ignored=PROJECTORS,
            spatial_dims=3,
        ),
        WeightCard(
            name="volta3d_vitb16.t1",
            architecture="brainiac_vitb16",  # the same transformer
            licence="not released",
            source="no release was found; a state dict of MONAI's ViTAutoEnc fits",
            pretrained_on=("T1-weighted MRI, see its paper",),
            spatial_dims=3,
            files=("*volta*",),
            intensity=ZERO_TO_ONE,
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
            files=("model_swinvit*", "ssl_pretrained_weights*", "swin_unetr.base_5000ep*"),
            by_files_alone=True,
            intensity=_CT_WINDOW,
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
            for size, file in (
                ("unetb", "unet_b_lw_dec_fullaug.pth"),
                ("unetxl", "unet_xl_lw_dec_fullaug.pth"),
            )
        ),
    ]
