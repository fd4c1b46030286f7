import numpy as np
import pytest

from nnunet_fm.data.perturbations import IDENTITY, PAPER, Perturbation
from nnunet_fm.data.preprocessing import preprocess_volume


def brain_volume() -> tuple[np.ndarray, np.ndarray]:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 40, 36)), indexing="ij")
    brain = z**2 + y**2 + x**2 < 0.7
    texture = np.random.default_rng(0).random(brain.shape)
    return (np.where(brain, 200 + 80 * x + 40 * texture, 0)).astype(np.float32), brain


@pytest.mark.parametrize("family", sorted(PAPER))
def test_severity_none_is_the_identity_and_the_background_stays(family: str) -> None:
    volume, brain = brain_volume()
    same = Perturbation(family, IDENTITY[family])
    assert same.is_identity
    assert same.to_dict() is None
    assert same(volume, brain) is volume
    former = np.zeros_like(volume)
    for severity in PAPER[family]:
        changed = Perturbation(family, severity)(volume, brain)
        assert changed.dtype == np.float32
        assert not changed[~brain].any()
        assert np.array_equal(changed, Perturbation(family, severity)(volume, brain))
        if severity != IDENTITY[family]:
            assert not np.allclose(changed[brain], volume[brain])
            assert not np.allclose(changed, former)
        former = changed
        sizes = [preprocess_volume(v, brain, (12, 24, 24)) != 0 for v in (volume, changed)]
        assert np.array_equal(*sizes)  # crop and brain are those of the clean volume


def test_gamma_is_a_power_between_the_brain_s_extremes() -> None:
    volume, brain = brain_volume()
    low, high = volume[brain].min(), volume[brain].max()
    changed = Perturbation("gamma", 2.0)(volume, brain)
    expected = ((volume[brain] - low) / (high - low)) ** 2 * (high - low) + low
    assert np.allclose(changed[brain], expected, rtol=1e-5)


def test_gibbs_cuts_high_frequencies_and_more_of_them() -> None:
    volume, brain = brain_volume()
    changed = [Perturbation("gibbs", s)(volume, brain) for s in PAPER["gibbs"]]
    errors = [float(np.square(c - volume)[brain].mean()) for c in changed]
    assert errors == sorted(errors)
    assert errors[0] == 0
    half = np.abs(np.fft.fftn(changed[-1]))[12, 20, 18]  # the highest frequency of each axis
    assert half < 0.5 * np.abs(np.fft.fftn(volume))[12, 20, 18]


def test_a_volume_has_one_field_of_exactly_the_requested_deviation() -> None:
    volume, brain = brain_volume()
    fields = [
        (Perturbation("bias", s)(volume, brain)[brain] / volume[brain] - 1) / s for s in (0.1, 0.4)
    ]
    assert np.allclose(*fields, atol=1e-4)
    assert fields[0].min() == pytest.approx(-1, abs=1e-3)
    assert fields[0].max() == pytest.approx(1, abs=1e-3)
    other = Perturbation("bias", 0.1)(volume + brain, brain)[brain] / (volume + brain)[brain]
    assert not np.allclose(other, 1 + 0.1 * fields[0], atol=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gibs=0.2", "unknown perturbation 'gibs'. Did you mean gibbs"),
        ("gibbs=2", "gibbs of 2; allowed: 0 to 0.95"),
        ("gibbs", "'gibbs' is not a perturbation; allowed: FAMILY=SEVERITY, e.g. gibbs=0.2"),
        ("gamma=0", "gamma of 0; allowed: 0.05 to 20"),
    ],
)
def test_bad_perturbations_say_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Perturbation.parse(text)
    assert Perturbation.from_dict(Perturbation.parse("bias=0.3").to_dict()) == Perturbation(
        "bias", 0.3
    )
