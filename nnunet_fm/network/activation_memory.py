"""How much memory a training step will take, told before it is taken."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

FITS = 0.6  # share of the free memory for what is kept; gradients, other buffers and the data take the rest


@contextmanager
def kept_for_backward(network: nn.Module) -> Iterator[dict[int, torch.UntypedStorage]]:
    """Within it, note what autograd keeps for the backward pass, by storage: several operations may keep the same.

    Parameters are left out, whatever view of them is kept, and so are a frozen encoder's copies in
    bfloat16.
    """
    parameters = {
        p.untyped_storage()._cdata for part in _with_copies(network) for p in part.parameters()
    }
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        yield kept


def total_bytes(kept: dict[int, torch.UntypedStorage]) -> int:
    """Of everything that was noted."""
    return sum(storage.nbytes() for storage in kept.values())


def kept_bytes(network: nn.Module, channels: int, patch: Sequence[int], batch: int) -> int:
    """Bytes that a forward pass keeps for the backward pass: exact, in about a second, without taking them.

    A copy of the network runs on tensors that have a shape and no content; what it remembers goes
    with it. Parameters are not counted.

    Args:
        network: on its device and in its precision.
        channels: of the input.
        patch: sides of the input, in pixels or voxels.
        batch: inputs at a time.

    Raises:
        ValueError: the input does not fit the network, e.g. leaves a map of one voxel to normalise.
        RuntimeError: the network asks for the content of a tensor.
    """
    device, mode = next(network.parameters()).device, FakeTensorMode(allow_non_fake_inputs=True)
    tensors = [t for part in _with_copies(network) for t in (*part.parameters(), *part.buffers())]
    pretended = copy.deepcopy(network, {id(t): mode.from_tensor(t) for t in tensors})
    with mode, kept_for_backward(pretended) as kept:
        pretended(torch.empty(batch, channels, *patch, device=device))
        return total_bytes(kept)


def _with_copies(network: nn.Module) -> list[nn.Module]:
    return [network, *getattr(network, "_compute", [])]


def fitting_patch(
    kept: Callable[[tuple[int, ...]], int], patch: Sequence[int], step: int, free: int
) -> str:
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


def does_not_fit(
    kept: Callable[[tuple[int, ...]], int], patch: Sequence[int], step: int, batch: int, free: int
) -> str:
    """What to say of a patch that takes more memory than there is; arguments as `fitting_patch`."""
    sides = tuple(patch)
    return (
        f"patch {'x'.join(map(str, sides))} in batches of {batch} keeps {_gib(kept(sides))} for the backward pass, and "
        f"takes more; {_gib(free)} are free. {fitting_patch(kept, sides, step, free).capitalize()}. "
        "Type `nnunet-fm plan` again with another --patch, a smaller --batch-size, or --fusion fixed where it learns"
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
