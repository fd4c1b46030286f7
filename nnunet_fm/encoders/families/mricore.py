"""MRI-CORE: a plain ViT-B that DINOv2's training code trained on slices of MRI (arXiv:2506.12186).

The authors run it inside SAM's encoder, which has windows and does not load its positions. Here it
is what it was trained as: full attention with its own positions.
"""

from functools import partial
from typing import Any

from nnunet_fm.encoders.contract import ZERO_TO_ONE
from nnunet_fm.encoders.families.dinov2 import RELEASED, Dinov2, sizes_in_file
from nnunet_fm.encoders.families.dinov3 import PRETRAINING_HEADS
from nnunet_fm.encoders.registry import register_architecture, register_cards
from nnunet_fm.encoders.weight_card import WeightCard

USUAL: dict[str, Any] = RELEASED | {"patch_size": 16, "image_size": 224}

register_architecture(
    "mricore_vitb16",
    partial(Dinov2, "vit_base_patch16_224"),  # no LayerScale, no registers
    PRETRAINING_HEADS,
    shown=partial(sizes_in_file, usual=USUAL),
)
register_cards(
    WeightCard(
        name="mricore_vitb16.mri",
        architecture="mricore_vitb16",
        licence="Apache-2.0",
        code_licence="Apache-2.0",
        source="MRI_CORE_vitb.pth of https://github.com/mazurowski-lab/mri_foundation",
        options={"positions": "offset"},
        pretrained_on=("6 million slices of 110,000 MRI volumes, see its paper",),
        citation="arXiv:2506.12186",
        ignored=PRETRAINING_HEADS,
        files=("mri_core_vitb.*", "mri_foundation.pth"),
        by_files_alone=True,
        formats=("DINOv2",),
        intensity=ZERO_TO_ONE,
        downstream="all of the network, fine-tuned inside SAM's encoder",
    )
)
