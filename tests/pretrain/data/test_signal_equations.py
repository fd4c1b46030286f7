"""The signal equations against values worked out by hand."""

import numpy as np
import pytest

from nnunet_fm_pretrain.data.acquisition import LIMITS, Acquisition
from nnunet_fm_pretrain.data.signal_equations import (
    PROTOCOLS,
    TISSUES,
    Tissue,
    brightness,
    draw_acquisition,
    fluid_attenuated,
    spin_echo,
    spoiled_gradient_echo,
)

TISSUE = Tissue(density=0.5, t1=1000, t2=100)


def test_a_spin_echo() -> None:
    # 0.5 (1 - exp(-1)) exp(-1/2)
    assert spin_echo(TISSUE, tr=1000, te=50, flip=90) == pytest.approx(0.19170025)
    assert spin_echo(TISSUE, tr=1e6, te=100, flip=90) == pytest.approx(0.5 / np.e)


def test_a_spoiled_gradient_echo() -> None:
    # 0.5 sin(30) (1 - exp(-0.02)) / (1 - cos(30) exp(-0.02)) exp(-0.05)
    found = spoiled_gradient_echo(TISSUE, tr=20, te=5, flip=30)
    assert found == pytest.approx(0.03115938)
    angle = np.degrees(np.arccos(np.exp(-0.02)))  # the Ernst angle has the largest signal
    others = [spoiled_gradient_echo(TISSUE, 20, 5, angle + change) for change in (-2, 2)]
    assert spoiled_gradient_echo(TISSUE, 20, 5, angle) > max(others)


def test_flair_nulls_fluid_and_weights_by_t2() -> None:
    assert fluid_attenuated(TISSUES["fluid"], 9000, 100, 90) == pytest.approx(0, abs=1e-9)
    short, long = (fluid_attenuated(TISSUES["white"], 9000, te, 90) for te in (80, 160))
    assert short / long == pytest.approx(np.e)  # T2 of white matter is 80 ms


def test_contrasts_are_those_of_the_sequences() -> None:
    t1 = brightness("T1", Acquisition(tr_ms=20, te_ms=4, flip_angle_deg=25))
    assert t1["white"] > t1["grey"] > t1["fluid"]
    t2 = brightness("T2", Acquisition(tr_ms=4500, te_ms=100, flip_angle_deg=90))
    assert t2["fluid"] > t2["oedema"] > t2["grey"] > t2["white"]
    flair = brightness("FLAIR", Acquisition(tr_ms=9000, te_ms=110, flip_angle_deg=90))
    assert flair["oedema"] > flair["grey"] > flair["white"] > flair["fluid"]
    for values in (t1, t2, flair):
        assert max(values.values()) == 1


def test_drawn_acquisitions_are_possible_ones() -> None:
    rng = np.random.default_rng(0)
    for sequence, protocol in PROTOCOLS.items():
        for _ in range(20):
            drawn = draw_acquisition(rng, sequence)
            assert drawn.tr_ms is not None
            assert drawn.te_ms is not None
            assert protocol.tr[0] <= drawn.tr_ms <= protocol.tr[1]
            assert protocol.te[0] <= drawn.te_ms <= protocol.te[1] < drawn.tr_ms
            for name, (low, high) in LIMITS.items():
                assert low <= getattr(drawn, name) <= high
