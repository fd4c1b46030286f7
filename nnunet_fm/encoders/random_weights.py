"""Random weights that are a function of their seed alone, on all x86 processors.

torch rounds random numbers by the processor: MKL's `erfinv` depends on its vector instructions,
and so does whether a product and a sum are rounded once or twice. The differences are in the last
bit, but the hash of the tensors, by which plans, caches and sweeps know an encoder, is another.

Here the numbers are computed in float64 by scipy, whose results differ rarely between processors,
and in the last bit; rounded to float32, no difference was seen in 86 million numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from scipy import special
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.encoders.registry import build_encoder

SMALLEST = 2.0**-54  # for a uniform number of 0, whose normal quantile is infinite


def build_random(
    architecture: str, seed: int, taps: Sequence[int] | None = None, **options: Any
) -> Encoder:
    """Build an encoder whose random weights are a function of `seed` alone.

    The global random generator keeps its state.

    Example:
        >>> from nnunet_fm.encoders import tensors_sha256
        >>> tensors_sha256(build_random("dinov3_test16", seed=0).state_dict())[:12]
        '9e1468ceda31'
    """
    with PortableDraws():
        return build_random_as_torch_does(architecture, seed, taps, **options)


def build_random_as_torch_does(
    architecture: str, seed: int, taps: Sequence[int] | None = None, **options: Any
) -> Encoder:
    """Build the encoder of `build_random` as version 0.1 did: rounded by the processor."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        return build_encoder(architecture, taps, **options)


def random_state(architecture: str, seed: int, **options: Any) -> dict[str, Tensor]:
    """Return the state dict of `build_random`."""
    return build_random(architecture, seed, **options).state_dict()


class PortableDraws(TorchDispatchMode):
    """Round random float32 numbers of the CPU once, from float64 results.

    Replaced are the operations that the initialisers of `torch.nn.init` and timm draw with:
    `uniform_`, `normal_`, `randn` and `erfinv_`. Numbers of other types and devices are torch's.
    """

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.ops.aten.randn.default:
            made = torch.empty(*args, **given)
            return _normal_(made) if _is_replaced(made) else func(*args, **given)
        in_place = IN_PLACE.get(func)
        if in_place is None or not _is_replaced(args[0]):
            return func(*args, **given)
        return in_place(*args, **given)


def _is_replaced(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def _uniform_(
    tensor: Tensor,
    low: float = 0.0,
    high: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    drawn = torch.rand(tensor.shape, generator=generator).double()
    start, end = torch.tensor([low, high])
    return tensor.copy_(drawn * (end - start).double() + start.double())


def _normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    drawn = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    normal = special.ndtri(drawn.clamp_(min=SMALLEST).numpy())
    return tensor.copy_(torch.as_tensor(normal) * std + mean)


def _erfinv_(tensor: Tensor) -> Tensor:
    return tensor.copy_(torch.as_tensor(special.erfinv(tensor.double().numpy())))


IN_PLACE: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.uniform_.default: _uniform_,
    torch.ops.aten.normal_.default: _normal_,
    torch.ops.aten.erfinv_.default: _erfinv_,
}
