"""nnU-Net's predictor with tiles and mirrored copies batched: same logits, fewer network calls."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.helpers import empty_cache
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from nnunet_fm.internal import device as devices
from nnunet_fm.internal.device import Precision
from nnunet_fm.internal.errors import InputError, NonFiniteError
from nnunet_fm.network.device_setup import set_up_for_device
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.checkpoint_file import restricted_loading

Slicer = tuple[slice | int, ...]
BACKGROUND_LOGIT = 10.0


class BatchedPredictor(nnUNetPredictor):
    """`nnUNetPredictor` whose sliding window runs many tiles at a time.

    Args:
        precision: `float32`, `bfloat16`, or None for the fastest that the device is good at.
        pixels_per_batch: network input pixels (or voxels) in one call, mirrored copies counted.
        skip_background: label tiles that are constant in every channel as background, without
            the network.
        trust_checkpoint: open checkpoints that need more than nnU-Net's trainer writes.
        **stock: arguments of `nnUNetPredictor`.

    Tiles are summed in float32, where stock nnU-Net sums them in half precision. A tile's weight at
    its corners is 1e-6 in 2-D and 6e-8, the smallest half-precision number, in 3-D. So where only
    the corner of one tile covers a voxel, stock rounds logits to 0.03 in 2-D and to whole numbers
    (an error of up to 0.5) in 3-D. With its sums widened to float32, the two agree to 1e-4.
    """

    def __init__(
        self,
        *args: Any,
        precision: Precision | None = None,
        pixels_per_batch: int = 16 * 256 * 256,
        skip_background: bool = False,
        trust_checkpoint: bool = False,
        **stock: Any,
    ) -> None:
        super().__init__(*args, **stock)
        fastest, reason = devices.best_precision(self.device)
        self.precision: Precision = precision or fastest
        self.precision_reason = "asked for" if precision else reason
        self.pixels_per_batch = pixels_per_batch
        self.skip_background = skip_background
        self.trust_checkpoint = trust_checkpoint
        self._prepared: nn.Module | None = None

    def initialize_from_trained_model_folder(self, *args: Any, **stock: Any) -> None:
        """Load a model as nnU-Net does, without running code that its checkpoints carry.

        Raises:
            ValueError: a checkpoint that `read_checkpoint` refuses, or of another network.
        """
        with restricted_loading(predict_from_raw_data, self.trust_checkpoint):
            try:
                super().initialize_from_trained_model_folder(*args, **stock)
            except RuntimeError as error:
                if "loading state_dict" not in str(error):
                    raise
                raise InputError(
                    f"the checkpoint does not fit the plans beside it: {str(error)[:500]}"
                ) from None

    def predict_sliding_window_return_logits(self, input_image: Float[Tensor, "c z y x"]) -> Tensor:
        """Predict the logits of one preprocessed case, in this predictor's precision."""
        if not torch.isfinite(input_image).all():
            raise InputError(
                "the preprocessed case holds NaN or infinite voxels; repair the image and rerun"
            )
        network = bare_network(self.network)
        if network is not self._prepared and isinstance(network, FrozenEncoderNetwork):
            set_up_for_device(network, self.device, self.precision)
            self._prepared = network
        return super().predict_sliding_window_return_logits(input_image)

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(
        self, data: Float[Tensor, "c z y x"], slicers: Sequence[Slicer], do_on_device: bool = True
    ) -> Float[Tensor, "k z y x"]:
        """Divide the sum of the weighted tiles by the sum of their weights."""
        where = self.device if do_on_device else torch.device("cpu")
        data = data.to(where)
        patch = tuple(self.configuration_manager.patch_size)
        weight = self._tile_weight(patch, where)
        heads = self.label_manager.num_segmentation_heads
        logits = torch.zeros((heads, *data.shape[1:]), device=where)
        weights = torch.zeros(data.shape[1:], device=where)
        with tqdm(total=len(slicers), disable=not self.allow_tqdm) as progress:
            for batch in self._batches(data, slicers, patch):
                predicted = self._predict_tiles(data, batch)
                for tile, slicer in zip(predicted, batch, strict=True):
                    logits[slicer] += tile.to(where) * weight
                    weights[slicer[1:]] += weight
                progress.update(len(batch))
        skipped = weights == 0
        logits /= weights.clamp_min(torch.finfo(torch.float32).tiny)
        self._fill_background(logits, skipped)
        if not torch.isfinite(logits).all():
            # not a RuntimeError, which nnU-Net would take for a lack of memory
            raise NonFiniteError(
                f"the network gave NaN or infinite logits in {self.precision}; try "
                "--precision float32"
            )
        return logits

    def _tile_weight(self, patch: tuple[int, ...], where: torch.device) -> Tensor:
        if not self.use_gaussian:
            return torch.ones(patch, device=where)
        return compute_gaussian(
            patch, sigma_scale=1.0 / 8, value_scaling_factor=10, device=where
        ).float()

    def _batches(
        self, data: Tensor, slicers: Sequence[Slicer], patch: tuple[int, ...]
    ) -> Iterator[list[Slicer]]:
        size = self._tiles_at_a_time(len(self._mirrors()) * math.prod(patch))
        selected = [s for s in slicers if not (self.skip_background and _is_constant(data[s]))]
        for start in range(0, len(selected), size):
            yield selected[start : start + size]

    def _tiles_at_a_time(self, pixels: int) -> int:
        """Return how many tiles of so many pixels the budget allows, as the encoder sees them."""
        scale = getattr(bare_network(self.network), "encoder_scale", 1)
        return max(1, self.pixels_per_batch // (pixels * scale**2))

    def _mirrors(self) -> list[tuple[int, ...]]:
        """List the axes to flip for each copy: none, then every combination, in nnU-Net's order."""
        axes = [a + 2 for a in (self.allowed_mirroring_axes or ())] if self.use_mirroring else []
        return [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]

    def _predict_tiles(self, data: Tensor, batch: list[Slicer]) -> Float[Tensor, "n k *patch"]:
        """Average the logits of each tile over its mirrored copies."""
        tiles = torch.stack([data[s] for s in batch]).to(self.device)
        mirrors = self._mirrors()
        outputs = self._run(torch.cat([torch.flip(tiles, m) if m else tiles for m in mirrors]))
        mean = outputs[: len(batch)].float()
        for number, mirror in enumerate(mirrors[1:], start=1):
            mean += torch.flip(outputs[number * len(batch) : (number + 1) * len(batch)], mirror)
        return mean / len(mirrors)

    def _run(self, x: Float[Tensor, "n c *patch"]) -> Float[Tensor, "n k *patch"]:
        """Run the network within the budget of pixels; a GPU out of memory halves the budget."""
        while True:
            size = self._tiles_at_a_time(x[0, 0].numel())
            try:
                return torch.cat([self.network(part) for part in x.split(size)])
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            empty_cache(
                self.device
            )  # outside the handler, which holds on to the failed call's memory
            self.pixels_per_batch //= 2

    def _fill_background(self, logits: Tensor, skipped: Tensor) -> None:
        """Label skipped voxels: a high logit for background, or low ones for every region."""
        if not skipped.any():
            return
        logits[:, skipped] = -BACKGROUND_LOGIT
        if not self.label_manager.has_regions:
            logits[0, skipped] = BACKGROUND_LOGIT


def _is_constant(tile: Tensor) -> bool:
    flat = tile.flatten(1)
    return bool((flat == flat[:, :1]).all())


def bare_network(network: nn.Module) -> nn.Module:
    """Remove the wrappers of DDP and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    if isinstance(network, OptimizedModule):
        network = network._orig_mod
    return network
