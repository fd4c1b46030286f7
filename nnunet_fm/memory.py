"""How much memory a training step will take, told before it is taken."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

FITS = 0.6  # share of the free memory for what is kept; gradients, other buffers and the data take the rest


def kept_bytes(network: nn.Module, channels: int, patch: Sequence[int], batch: int) -> int:
    """Bytes that a forward pass keeps for the backward pass: exact, in about a second, without taking them.

    A copy of the network runs on tensors that have a shape and no content; what it remembers goes with it. Parameters
    are not counted.

    Args:
        network: on its device and in its precision.
        channels: of the input.
        patch: sides of the input, in pixels or voxels.
        batch: inputs at a time.

    Raises:
        RuntimeError: the network asks for the content of a tensor.
    """
    kept: dict[int, torch.UntypedStorage] = {}
    device = next(network.parameters()).device

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage  # one storage may be kept by several operations
        return tensor

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    pretended = _without_content(network, mode)
    with mode, torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        pretended(torch.empty(batch, channels, *patch, device=device))
        return sum(storage.nbytes() for storage in kept.values())


def _without_content(network: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy whose parameters and buffers have a shape only."""
    parts = [network, *getattr(network, "_compute", [])]
    tensors = [t for part in parts for t in (*part.parameters(), *part.buffers())]
    return copy.deepcopy(network, {id(t): mode.from_tensor(t) for t in tensors})


def fitting_patch(kept: Callable[[tuple[int, ...]], int], patch: Sequence[int], step: int, free: int) -> str:
    """The nearest smaller patch that fits, in words: the largest sides shrink first.

    Args:
        kept: bytes for a patch.
        patch: one that does not fit.
        step: that sides go down by.
        free: bytes.
    """
    sides = list(patch)
    while max(sides) > step:
        largest = max(sides)
        sides = [side - step if side == largest else side for side in sides]
        try:
            fits = kept(tuple(sides)) <= FITS * free
        except ValueError:  # too small for the network
            break
        if fits:
            return "nearest patch that fits: " + "x".join(map(str, sides))
    return "no patch fits"


def does_not_fit(kept: Callable[[tuple[int, ...]], int], patch: Sequence[int], step: int, batch: int, free: int) -> str:
    """What to say of a patch that takes more memory than there is; arguments as `fitting_patch`."""
    sides = tuple(patch)
    return (
        f"patch {'x'.join(map(str, sides))} in batches of {batch} keeps {_gib(kept(sides))} for the backward pass, and "
        f"takes more; {_gib(free)} are free. {fitting_patch(kept, sides, step, free).capitalize()}. "
        "Type `nnunet-fm plan` again with another --patch, a smaller --batch-size, or --fusion fixed where it learns"
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
