"""Curia and Curia-2: DINOv2 ViT-B on slices of CT and MRI of a hospital (Raidium).

Their files are those of `transformers` (`Dinov2Model`): one channel, patches of 16, 512 pixels. The
authors rescale every slice to 512 pixels, without keeping its voxel size.
"""

from typing import Any

from nnunet_fm.encoders.families import dinov2 as _dinov2  # noqa: F401, registers the network
from nnunet_fm.encoders.registry import register_cards
from nnunet_fm.encoders.weight_card import WeightCard

SIZES: dict[str, Any] = {"in_chans": 1, "patch_size": 16, "image_size": 512}


def _card(name: str, repository: str, **fields: Any) -> WeightCard:
    return WeightCard(
        name=f"{name}_vitb16.hospital",
        architecture="dinov2_vitb14",  # the same network; its file shows the sizes
        licence="Research-only RAIL-M (gated)",
        source=f"https://huggingface.co/{repository}",
        hub=f"hf://{repository}",
        options={"positions": "offset", **SIZES},
        pretrained_on=("CT and MRI of one hospital, private",),
        files=(f"*/{repository}/*", f"*--{repository.replace('/', '--')}/*"),
        by_files_alone=True,
        intensity="z-score of each slice, all pixels; CT not below -1000 HU",
        orientation="axial, rows to posterior and columns to the left",
        **fields,
    )


register_cards(
    _card("curia", "raidium/curia", citation="arXiv:2509.06830"),
    _card("curia2", "raidium/curia-2", citation="arXiv:2604.01987"),
)
