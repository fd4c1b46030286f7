"""Cross-entropy over prototypes without the matrix of logits.

That matrix would take 5 GB a copy for 65536 prototypes and 20000 tokens.

Teacher targets are softmax(l / t + b) with one number b per prototype. Centring is a way to choose
b: minus the moving average of the teacher's logits over t (DINO), or the scaling that
Sinkhorn-Knopp converges to (DINOv3), whose other half, a number per row, is what the softmax
normalises away.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from lightly.utils.dist import world_size
from torch import Tensor
from torch.autograd.function import FunctionCtx

ELEMENTS = 1 << 25  # logits at a time: 128 MiB in float32

Rows = Float[Tensor, "v n d"]
Prototypes = Float[Tensor, "k d"]


class Distilled(NamedTuple):
    """A cross-entropy, and what its targets are like.

    Attributes:
        loss: the only tensor with a gradient.
        entropy: mean entropy of the targets.
        mean_target: their mean, whose entropy says how many prototypes are in use.
    """

    loss: Float[Tensor, ""]
    entropy: Float[Tensor, ""]
    mean_target: Float[Tensor, " k"]


def logits(rows: Float[Tensor, "*rows d"], prototypes: Prototypes) -> Float[Tensor, "*rows k"]:
    """Multiply with the prototypes, in autocast precision if it is on; return float32 or more."""
    device = rows.device.type
    if torch.is_autocast_enabled(device):
        exact = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return (rows.to(exact) @ prototypes.to(exact).T).float()
    return rows @ prototypes.T


@torch.no_grad()
def sinkhorn_bias(
    rows: Float[Tensor, "n d"], prototypes: Prototypes, temperature: float, iterations: int = 3
) -> Float[Tensor, " k"]:
    """Return the b of Sinkhorn-Knopp, which gives every prototype the same mass over all rows.

    Args:
        rows: teacher embeddings of this rank; ranks may have different numbers, even none.
        prototypes: of the teacher.
        temperature: of the teacher.
        iterations: as DINOv3's.

    Returns:
        b; softmax(logits / temperature + b) is the iteration's result.
    """
    bias = -_column_logsumexp(rows, prototypes, temperature, None)
    for _ in range(iterations - 1):
        bias = bias - bias.max()  # a constant changes nothing
        bias = -_column_logsumexp(rows, prototypes, temperature, bias)
    return bias - bias.max()


def _column_logsumexp(
    rows: Tensor, prototypes: Prototypes, temperature: float, bias: Tensor | None
) -> Float[Tensor, " k"]:
    """Return the logarithm of each prototype's mass over all ranks.

    Rows are normalised under `bias`; without one they are not normalised.
    """
    exact = torch.promote_types(rows.dtype, torch.float32)
    largest = torch.full((len(prototypes),), -torch.inf, device=rows.device, dtype=exact)
    total = torch.zeros_like(largest)
    for chunk in rows.split(max(1, ELEMENTS // len(prototypes))) if len(rows) else ():
        scaled = logits(chunk, prototypes).to(exact) / temperature
        if bias is not None:
            scaled = scaled - torch.logsumexp(scaled + bias, dim=1, keepdim=True)
        peak = torch.maximum(largest, scaled.amax(0))
        total = total * torch.exp(largest - peak) + torch.exp(scaled - peak).sum(0)
        largest = peak
    if world_size() > 1:
        peak = largest.clone()
        dist.all_reduce(peak, dist.ReduceOp.MAX)
        total = total * torch.exp(largest - peak)
        dist.all_reduce(total)
        largest = peak
    return largest + total.log()


def cross_entropy(
    student: Rows,
    student_prototypes: Prototypes,
    teacher: Float[Tensor, "t n d"],
    teacher_prototypes: Prototypes,
    bias: Float[Tensor, " k"],
    pairs: Float[Tensor, "v t"],
    weights: Float[Tensor, " n"],
    temperatures: tuple[float, float],
) -> Distilled:
    """Sum w_n pair_vt H(softmax(teacher_tn / t_t + b), softmax(student_vn / t_s)).

    Args:
        student: embeddings of `v` views of `n` things (slices or tokens); gradients flow to it and
            its prototypes.
        student_prototypes: gradients flow to them.
        teacher: embeddings of `t` views.
        teacher_prototypes: of the teacher's head.
        bias: the centring.
        pairs: weight of each pair of views; 0 excludes it.
        weights: of each thing.
        temperatures: of student and teacher.
    """
    return Distilled(
        *_CrossEntropy.apply(
            student,
            student_prototypes,
            teacher,
            teacher_prototypes,
            bias,
            pairs,
            weights,
            temperatures,
        )
    )


class _CrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over chunks of rows; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        student: Tensor,
        student_prototypes: Tensor,
        teacher: Tensor,
        teacher_prototypes: Tensor,
        bias: Tensor,
        pairs: Tensor,
        weights: Tensor,
        temperatures: tuple[float, float],
    ) -> tuple[Tensor, Tensor, Tensor]:
        warm, cold = temperatures
        size = max(1, ELEMENTS // (len(student_prototypes) * (len(student) + len(teacher))))
        loss, entropy, mean = bias.new_zeros(()), bias.new_zeros(()), torch.zeros_like(bias)
        d_student, d_prototypes = torch.zeros_like(student), torch.zeros_like(student_prototypes)
        pairs, weights = pairs.to(bias.dtype), weights.to(bias.dtype)
        for start in range(0, student.shape[1], size):
            part = slice(start, start + size)
            targets = torch.softmax(
                logits(teacher[:, part], teacher_prototypes).to(bias.dtype) / cold + bias, dim=-1
            )
            entropy += torch.special.entr(targets).sum()
            mean += targets.sum((0, 1))
            targets = torch.einsum("vt,tnk->vnk", pairs, targets)
            scaled = logits(student[:, part], student_prototypes).to(bias.dtype) / warm
            likely = torch.log_softmax(scaled, dim=-1)
            scale = weights[part][None, :, None]
            loss -= (scale * targets * likely).sum()
            # d loss / d logits, written over the log-probabilities
            change = (
                likely.exp_().mul_(pairs.sum(1)[:, None, None]).sub_(targets).mul_(scale / warm)
            )
            change = change.to(student.dtype)
            d_student[:, part] = logits(change, student_prototypes.T)
            d_prototypes += logits(change.flatten(0, 1).T, student[:, part].flatten(0, 1).T)
        ctx.save_for_backward(d_student, d_prototypes)  # type: ignore[attr-defined]
        rows = max(1, teacher.shape[0] * teacher.shape[1])
        entropy, mean = entropy / rows, mean / rows
        ctx.mark_non_differentiable(entropy, mean)  # type: ignore[attr-defined]
        return loss, entropy, mean

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_student, d_prototypes = ctx.saved_tensors  # type: ignore[attr-defined]
        return grads[0] * d_student, grads[0] * d_prototypes, *(None,) * 6
