"""The losses written plainly, with whole matrices: what the fast ones are compared with."""

import torch
from torch import Tensor


def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Sinkhorn-Knopp as DINOv3's paper and code have it, on the transposed matrix."""
    q = torch.exp(logits / temperature).T
    prototypes, samples = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / prototypes
        q = q / q.sum(0, keepdim=True) / samples
    return (q * samples).T


def entropy_between(targets: Tensor, logits: Tensor, temperature: float) -> Tensor:
    return -(targets * torch.log_softmax(logits / temperature, dim=-1)).sum(-1)


def dino(student: list[Tensor], targets: list[Tensor], temperature: float) -> Tensor:
    """Mean over pairs of a student's view and another view of the teacher's, then over slices."""
    terms = [
        entropy_between(t, s, temperature).mean()
        for i, t in enumerate(targets)
        for j, s in enumerate(student)
        if i != j
    ]
    return torch.stack(terms).mean()


def ibot(student: Tensor, targets: Tensor, masks: Tensor, temperature: float) -> Tensor:
    """Mean over the masked patches of a crop, then over crops; arguments hold all patches."""
    total = torch.zeros((), dtype=student.dtype)
    for s, t, mask in zip(student, targets, masks.flatten(1), strict=True):
        if mask.any():
            total = total + entropy_between(t[mask], s[mask], temperature).mean()
    return total / len(masks)


def koleo(cls: Tensor) -> Tensor:
    directions = cls / cls.norm(dim=-1, keepdim=True)
    distances = torch.cdist(directions, directions)
    distances = distances + 10 * torch.eye(len(cls), dtype=cls.dtype)
    return -distances.amin(1).log().mean()
