"""Estimate a training step's activation memory without running it."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

# Share of the free memory for saved activations; gradients, buffers and data take the rest.
FITS = 0.6


@contextmanager
def kept_for_backward(network: nn.Module) -> Iterator[dict[int, torch.UntypedStorage]]:
    """Record the storages that autograd saves for the backward pass while the context is open.

    A storage counts once, however many operations save it. Parameters are excluded, also as views,
    and so are a frozen encoder's copies in bfloat16.
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
    """Return the size of all recorded storages in bytes."""
    return sum(storage.nbytes() for storage in kept.values())


def kept_bytes(network: nn.Module, channels: int, patch: Sequence[int], batch: int) -> int:
    """Return the bytes that a forward pass saves for the backward pass, without allocating them.

    The number is exact and takes about a second: a copy of the network runs on tensors that have a
    shape and no content. Parameters are not counted.

    Args:
        network: on its device and in its precision.
        channels: of the input.
        patch: sides of the input, in pixels or voxels.
        batch: inputs per step.

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
    """Describe the nearest smaller patch that fits; the largest sides shrink first.

    Args:
        kept: gives the bytes that a patch keeps.
        patch: one that does not fit.
        step: by which sides shrink, in pixels or voxels.
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
    """Return the message for a patch that does not fit; arguments as for `fitting_patch`."""
    sides = tuple(patch)
    return (
        f"patch {'x'.join(map(str, sides))} in batches of {batch} keeps {_gib(kept(sides))} for "
        f"the backward pass, and takes more; {_gib(free)} are free. "
        f"{fitting_patch(kept, sides, step, free).capitalize()}. Rerun `nnunet-fm plan` with "
        "another --patch, a smaller --batch-size or, if the fusion learns, --fusion separate"
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
