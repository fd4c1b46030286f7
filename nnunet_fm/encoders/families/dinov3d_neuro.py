"""Dinov3d-Neuro: a DINOv3 transformer of brain MRI volumes (Gilmore and Rokem).

Its code is not public. The tensors of its published file, as others load it, are those of FlexiCT's
class with patches of 16, without storage tokens, and with biases of queries, keys and values.
"""

from functools import partial
from typing import Any

from nnunet_fm.encoders.contract import Z_SCORE_EVERYWHERE
from nnunet_fm.encoders.families.dinov3 import PRETRAINING_HEADS
from nnunet_fm.encoders.families.flexict import TINY, FlexiCT
from nnunet_fm.encoders.registry import register_architecture, register_cards
from nnunet_fm.encoders.weight_card import WeightCard

NEURO: dict[str, Any] = {
    "kernels": (3,),
    "patch_sizes": (16,),
    "width": 792,
    "depth": 12,
    "storage_tokens": 0,
    "qkv_bias": True,
    "image_size": 128,
    "orientation": "RAS",
    "spacing": 1.0,
}

register_architecture("dinov3dneuro_vitb16", partial(FlexiCT, **NEURO), PRETRAINING_HEADS)
register_architecture("dinov3dneuro_test16", partial(FlexiCT, **(NEURO | TINY)), PRETRAINING_HEADS)
register_cards(
    WeightCard(
        name="dinov3dneuro_vitb16.fomo300k",
        architecture="dinov3dneuro_vitb16",
        licence="CC BY-NC-SA 4.0",
        code_licence="not public",
        source="eval/training_137499/teacher_checkpoint.pth of "
        "https://huggingface.co/huggingbrain/Dinov3d-Neuro",
        hub="hf://huggingbrain/Dinov3d-Neuro/eval/training_137499/teacher_checkpoint.pth",
        pretrained_on=("FOMO300K", "OpenNeuro"),
        ignored=PRETRAINING_HEADS,
        spatial_dims=3,
        files=("*dinov3d-neuro/*",),
        by_files_alone=True,
        intensity=Z_SCORE_EVERYWHERE,
        downstream="the CLS token and the patch tokens",
        unverified="the authors' code is not public: order of axes, coordinates and LayerNorm "
        "epsilon are FlexiCT's; RAS and z-scores (clipped at 0.5 and 99.5 %) are those of others "
        "who use it",
    )
)
