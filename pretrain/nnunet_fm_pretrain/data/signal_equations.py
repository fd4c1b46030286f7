"""Brightness of tissues from the signal equations of MRI, with drawn TR, TE and flip angle.

It makes scans whose TR, TE and flip angle are known and decide the contrast. Relaxation times are
those at 3 T: of grey and white matter by Wansapura et al. (J Magn Reson Imaging 1999), the others
rounded.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from nnunet_fm_pretrain.data.acquisition import Acquisition

Range = tuple[float, float]


class Tissue(NamedTuple):
    """Proton density (of water: 1) and relaxation times in ms."""

    density: float
    t1: float
    t2: float


TISSUES: Mapping[str, Tissue] = {
    "fluid": Tissue(1.0, 4000, 2000),
    "grey": Tissue(0.82, 1331, 110),
    "white": Tissue(0.71, 832, 80),
    "necrosis": Tissue(0.95, 2500, 350),
    "oedema": Tissue(0.88, 1500, 160),
    "enhancing": Tissue(0.85, 1100, 130),
    "bone": Tissue(0.1, 400, 5),
    "scalp": Tissue(0.9, 380, 70),
}


def spoiled_gradient_echo(tissue: Tissue, tr: float, te: float, flip: float) -> float:
    """Return the signal of a spoiled gradient echo (times in ms, flip angle in degrees)."""
    angle, recovery = math.radians(flip), math.exp(-tr / tissue.t1)
    steady = math.sin(angle) * (1 - recovery) / (1 - math.cos(angle) * recovery)
    return tissue.density * steady * math.exp(-te / tissue.t2)


def spin_echo(tissue: Tissue, tr: float, te: float, flip: float) -> float:
    """Return the signal of a spin echo after a pulse of 90 degrees, whatever `flip` says."""
    return tissue.density * (1 - math.exp(-tr / tissue.t1)) * math.exp(-te / tissue.t2)


def fluid_attenuated(tissue: Tissue, tr: float, te: float, flip: float) -> float:
    """Return the signal of an inversion recovery spin echo that nulls fluid."""
    fluid = TISSUES["fluid"].t1
    delay = fluid * (math.log(2) - math.log1p(math.exp(-tr / fluid)))
    recovered = 1 - 2 * math.exp(-delay / tissue.t1) + math.exp(-tr / tissue.t1)
    return tissue.density * abs(recovered) * math.exp(-te / tissue.t2)


class Protocol(NamedTuple):
    """A sequence: its equation, and ranges of TR and TE (ms) and flip angle (degrees)."""

    signal: Callable[[Tissue, float, float, float], float]
    tr: Range
    te: Range
    flip: Range


PROTOCOLS: Mapping[str, Protocol] = {
    "T1": Protocol(spoiled_gradient_echo, (6, 30), (2, 6), (8, 35)),
    "T2": Protocol(spin_echo, (3000, 6000), (80, 120), (90, 90)),
    "PD": Protocol(spin_echo, (2000, 4000), (8, 30), (90, 90)),
    "FLAIR": Protocol(fluid_attenuated, (6000, 11000), (80, 140), (90, 90)),
}


def draw_acquisition(rng: np.random.Generator, sequence: str) -> Acquisition:
    """Draw TR, TE and flip angle of a sequence, uniformly, with the precision of a header."""
    protocol = PROTOCOLS[sequence]
    tr, te, flip = (round(float(rng.uniform(*r)), 2) for r in protocol[1:])
    return Acquisition(tr_ms=tr, te_ms=te, flip_angle_deg=flip)


def brightness(sequence: str, acquired: Acquisition) -> dict[str, float]:
    """Return the signal of each tissue, of which the brightest has 1.

    Args:
        sequence: name in `PROTOCOLS`.
        acquired: TR, TE and flip angle.
    """
    parameters = (acquired.tr_ms, acquired.te_ms, acquired.flip_angle_deg)
    tr, te, flip = (float(value or 0) for value in parameters)
    signal = PROTOCOLS[sequence].signal
    signals = {name: signal(tissue, tr, te, flip) for name, tissue in TISSUES.items()}
    highest = max(signals.values())
    return {name: value / highest for name, value in signals.items()}
