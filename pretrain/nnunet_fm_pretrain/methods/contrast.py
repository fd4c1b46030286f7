"""The contrast of samples with those of other people (InfoNCE)."""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from lightly.utils.dist import gather, world_size
from torch import Tensor, nn

from nnunet_fm_pretrain.methods.self_distillation import exact_dtype


def infonce(
    anchors: Float[Tensor, "b d"],
    positives: Float[Tensor, "b d"],
    subjects: Int64[Tensor, " b"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Contrast each anchor with its positive and with the positives of other people.

    L = -log exp(a p / t) / (exp(a p / t) + sum over other subjects of exp(a p' / t)), cosines, mean
    over anchors of all ranks. Samples of the same person are never negatives.

    Args:
        anchors: vectors of samples.
        positives: vectors of what each sample is contrasted with.
        subjects: number of the person of each sample.
        temperature: of the cosines.
    """
    exact = exact_dtype(anchors)
    with torch.autocast(anchors.device.type, enabled=False):
        a = nn.functional.normalize(anchors.to(exact), dim=-1)
        p = nn.functional.normalize(positives.to(exact), dim=-1)
        others, people = p, subjects
        first = 0
        if world_size() > 1:
            others = torch.cat(gather(p.contiguous()))
            people = torch.cat(gather(subjects))
            first = dist.get_rank() * len(a)
        cosines = a @ others.T / temperature
        own = torch.arange(len(a), device=a.device) + first
        same = subjects[:, None] == people[None]
        same[torch.arange(len(a), device=a.device), own] = False
        return nn.functional.cross_entropy(cosines.masked_fill(same, -torch.inf), own)
