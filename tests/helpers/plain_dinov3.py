"""DINOv3's ViT, on slices or volumes, written plainly from its definition: an independent oracle.

Takes official parameter names. One function per equation; nothing of timm or of nnunet_fm is used.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


def rope_tables(
    grid: tuple[int, ...], head: int, periods: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Sines and cosines (tokens, head) of coordinates in [-1, 1]: axis by axis, tiled twice."""
    coordinates = torch.stack(
        torch.meshgrid(*(torch.arange(0.5, n, dtype=dtype) / n for n in grid), indexing="ij"), -1
    ).flatten(0, -2)
    coordinates = 2.0 * coordinates - 1.0
    angles = (
        (2 * math.pi * coordinates[:, :, None] / periods.to(dtype)[None, None]).flatten(1).tile(2)
    )
    assert angles.shape[1] == head
    return torch.sin(angles), torch.cos(angles)


def rotate(x: Tensor, sin: Tensor, cos: Tensor, prefix: int) -> Tensor:
    """Rotate all but the prefix tokens, in the tables' precision."""
    kind, x = x.dtype, x.to(sin.dtype)
    first, second = x[:, :, prefix:].chunk(2, -1)
    turned = x[:, :, prefix:] * cos + torch.cat([-second, first], -1) * sin
    return torch.cat([x[:, :, :prefix], turned], 2).to(kind)


def features(
    state: State,
    image: Tensor,
    taps: tuple[int, ...],
    heads: int,
    eps: float,
    periods: Tensor,
    dtype: torch.dtype,
    stem: str = "patch_embed",
) -> list[Tensor]:
    """Tapped blocks through the final norm: (batch, all tokens, width)."""
    width = state["cls_token"].shape[-1]
    kernel = state[f"{stem}.proj.weight"]
    convolve = functional.conv2d if kernel.ndim == 4 else functional.conv3d
    x = convolve(image, kernel, state[f"{stem}.proj.bias"], stride=kernel.shape[-1])
    grid = tuple(x.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    front = [state[name] for name in ("cls_token", "storage_tokens") if name in state]
    prefix = torch.cat(front, 1).expand(len(x), -1, -1)
    x = torch.cat([prefix, x], 1)
    sin, cos = rope_tables(grid, width // heads, periods, dtype)
    depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
    outputs = []

    def norm(value: Tensor, name: str) -> Tensor:
        return functional.layer_norm(
            value, (width,), state[f"{name}.weight"], state[f"{name}.bias"], eps
        )

    def linear(value: Tensor, name: str) -> Tensor:
        return functional.linear(value, state[f"{name}.weight"], state.get(f"{name}.bias"))

    for i in range(depth):
        block = f"blocks.{i}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.reshape(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = (rotate(t, sin, cos, prefix.shape[1]) for t in (q, k))
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + linear(attended, f"{block}.attn.proj") * state[f"{block}.ls1.gamma"]
        hidden = norm(x, f"{block}.norm2")
        if f"{block}.mlp.w1.weight" in state:
            gate = functional.silu(linear(hidden, f"{block}.mlp.w1"))
            hidden = linear(gate * linear(hidden, f"{block}.mlp.w2"), f"{block}.mlp.w3")
        else:
            hidden = linear(functional.gelu(linear(hidden, f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
        x = x + hidden * state[f"{block}.ls2.gamma"]
        if i in taps:
            outputs.append(norm(x, "norm"))
    return outputs
