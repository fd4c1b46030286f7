"""Run a frozen encoder over preprocessed volumes, in batches that cross volumes."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from nnunet_fm.encoders import Encoder
from nnunet_fm.encoders.slicewise import to_slabs, to_slices
from nnunet_fm.features.volume_loader import PreprocessedVolume
from nnunet_fm.internal.device import keep_freed_memory

EmbeddedVolume = tuple[str, list[np.ndarray] | str]  # key; vectors of each layer, or a reason


def embed_volumes(
    encoder: Encoder,
    volumes: Iterable[PreprocessedVolume],
    precision: str,
    batch: int,
    device: torch.device,
) -> Iterator[EmbeddedVolume]:
    """Embed volumes, slice by slice (2-D encoders) or whole (3-D encoders).

    Args:
        encoder: frozen encoder.
        volumes: keys and volumes, or the reasons why volumes cannot be used.
        precision: `bfloat16` (autocast) or `float32`.
        batch: slices (2-D) or volumes (3-D) per batch.
        device: device of the encoder.

    Yields:
        Key, and an array (rows, d) per layer of `encoder.embedded_layers`, with a row per slice
        (2-D) or one row (3-D); or the reason of a volume that cannot be used.
    """
    encoder = encoder.to(device)
    if device.type == "cpu":
        keep_freed_memory()
    queue = _RowQueue()
    for key, volume in volumes:
        if isinstance(volume, str):
            yield key, volume
            continue
        queue.add(key, rows_of(encoder, torch.from_numpy(volume)))
        while queue.waiting >= batch:
            queue.store(embed_rows(encoder, queue.take(batch), precision, device))
        yield from queue.pop_finished()
    while queue.waiting:
        queue.store(embed_rows(encoder, queue.take(batch), precision, device))
    yield from queue.pop_finished()


def rows_of(encoder: Encoder, volume: Tensor) -> Tensor:
    """Return the inputs that a volume makes: slices, slabs of slices, or itself.

    Args:
        encoder: of slices or volumes.
        volume: (z, y, x), or the volumes of a visit as channels, (c, z, y, x).
    """
    spec = encoder.input_spec
    channels = volume[None] if volume.dim() == 3 else volume
    if spec.spatial_dims == 3:
        return channels[None]
    return to_slices(to_slabs(channels[None], spec.slices))


@torch.inference_mode()
def embed_rows(
    encoder: Encoder, rows: Tensor, precision: str, device: torch.device
) -> list[Tensor]:
    """Return the vectors of a batch of rows, (rows, d) for each layer, on the CPU in float32."""
    x = rows.to(device).float()
    if x.shape[1] == 1:  # the same image in every channel
        x = x.expand(-1, encoder.in_channels, *[-1] * (x.dim() - 2))
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        vectors = encoder.embed_taps(x)
    return [layer.float().cpu() for layer in vectors]


class _RowQueue:
    """The rows of several volumes on their way through the encoder, first in, first out.

    Attributes:
        waiting: number of rows that wait for the encoder.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._rows: list[Tensor] = []
        self._vectors: list[Tensor] = []  # of each layer, in the order of the rows
        self._volumes: deque[tuple[str, int]] = deque()  # key and number of rows

    def add(self, key: str, rows: Tensor) -> None:
        """Add the rows of a volume."""
        self._volumes.append((key, len(rows)))
        self._rows.append(rows)
        self.waiting += len(rows)

    def take(self, count: int) -> Tensor:
        """Remove and return up to `count` waiting rows."""
        rows = torch.cat(self._rows) if len(self._rows) > 1 else self._rows[0]
        self._rows = [rows[count:]] if len(rows) > count else []
        self.waiting = max(0, len(rows) - count)
        return rows[:count]

    def store(self, vectors: list[Tensor]) -> None:
        """Keep the vectors of the rows taken last, one tensor for each layer."""
        if self._vectors:
            pairs = zip(self._vectors, vectors, strict=True)
            vectors = [torch.cat(pair) for pair in pairs]
        self._vectors = vectors

    def pop_finished(self) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Remove and yield the volumes of which every row has been embedded."""
        while self._volumes and self._vectors and len(self._vectors[0]) >= self._volumes[0][1]:
            key, count = self._volumes.popleft()
            yield key, [layer[:count].numpy() for layer in self._vectors]
            self._vectors = [layer[count:] for layer in self._vectors]
