"""What a user asks of the planner."""

from dataclasses import dataclass, field
from typing import Any

from nnunet_fm.nnunet.train_subset import TrainSubset

STOCK_PLANS = "nnUNetPlans"
NO_ENCODER = "none"
INTENSITY = ("encoder", "stock")


@dataclass(frozen=True)
class PlanRequest:
    """What a user asks of the planner.

    Attributes:
        base: stock configuration to inherit from; `2d`.
        encoder: weight file, architecture name for random weights, or `none` for stock nnU-Net on a
            subset.
        card: weight card of the file, where it cannot be told from the file.
        preset: name of a file in `plans/`; `<base>_fm256` if None.
        patch: sides in pixels, in the place of the preset's; of a 2.5-D patch the number of its
            slices may come first.
        fov: `native` keeps the spacing and pads, `fit` resamples so that the patch covers the
        median slice. taps, fusion, decoder: in the place of the preset's.
        batch_size: slices per step; the stock one scaled by the pixels of a slice if None.
        seed: of random weights; 0 if None.
        options: of the architecture, in the place of the card's.
        intensity: `encoder` normalises as the encoder's pretraining did, on data that nnU-Net has
            to preprocess anew where that is another way than its own; `stock` leaves nnU-Net's.
        mix_slices: 1, 3 or 5 for the 2.5-D network, on stacks of slices of a 2-D configuration.
        subset: part of the training split.
        source_plans: plans to start from.
        output: identifier of the plans to write; `FM_<encoder>[_rNNN]` if None.
    """

    base: str = "2d"
    encoder: str = NO_ENCODER
    card: str | None = None
    preset: str | None = None
    patch: tuple[int, ...] | None = None
    fov: str | None = None
    taps: tuple[int, ...] | None = None
    fusion: str | None = None
    decoder: str | None = None
    batch_size: int | None = None
    seed: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    intensity: str = INTENSITY[0]
    mix_slices: int | None = None
    subset: TrainSubset = TrainSubset()
    source_plans: str = STOCK_PLANS
    output: str | None = None
