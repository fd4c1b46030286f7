"""Contrast, Gibbs ringing and bias field on raw volumes, to measure robustness (BrainDINO, 4.4).

The paper gives severities but no definitions. Those used here leave a volume unchanged at severity
"none" and never leave the clean brain mask, so that cropping and z-scores see the same voxels as
without them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from nnunet_fm.data.volumes import Mask, Volume
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

DEGREE = 3  # of the bias field's polynomial
VERSION = 1  # raised whenever the same severity gives other values


@dataclass(frozen=True)
class Perturbation:
    """A family of perturbations at one severity.

    Attributes:
        family: `gamma` (exponent; 1 is none), `gibbs` (share of the k-space radius that is cut, 0
            is none) or `bias` (largest deviation of the field from 1, 0 is none).
        severity: see the family.

    Raises:
        ValueError: unknown family, or a severity outside its range.
    """

    family: str
    severity: float

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise InputError(unknown("perturbation", self.family, FAMILIES))
        low, high = ALLOWED[self.family]
        if not low <= self.severity <= high:
            raise InputError(f"{self.family} of {self.severity:g}; allowed: {low:g} to {high:g}")

    @classmethod
    def parse(cls, text: str) -> "Perturbation":
        """Read `FAMILY=SEVERITY`, e.g. `gibbs=0.2`.

        Raises:
            ValueError: the text has another form, or an unknown family or severity.
        """
        family, _, severity = text.partition("=")
        try:
            number = float(severity)
        except ValueError:
            raise InputError(
                f"{text!r} is not a perturbation; allowed: FAMILY=SEVERITY, e.g. gibbs=0.2"
            ) from None
        return cls(family, number)

    @classmethod
    def from_dict(cls, content: dict[str, Any] | None) -> "Perturbation | None":
        """Invert `to_dict`; None gives None.

        Raises:
            ValueError: the dictionary was written by another version of the perturbations.
        """
        if content is None:
            return None
        if content["version"] != VERSION:
            raise InputError(
                f"perturbation of version {content['version']}; this version is {VERSION}"
            )
        return cls(content["family"], content["severity"])

    def to_dict(self) -> dict[str, Any] | None:
        """Return the entry of a feature recipe; None if the perturbation changes nothing."""
        if self.is_identity:
            return None
        return {"family": self.family, "severity": self.severity, "version": VERSION}

    @property
    def is_identity(self) -> bool:
        """Whether the perturbation changes nothing."""
        return self.severity == IDENTITY[self.family]

    def __call__(
        self, volume: Volume, brain: Mask, bias_seed_volume: Volume | None = None
    ) -> Volume:
        """Perturb the voxels inside the brain.

        Args:
            volume: raw intensities, (z, y, x).
            brain: mask of the clean volume.
            bias_seed_volume: clean volume whose voxels seed the bias field, e.g. one modality for
                all of a case; `volume` if None.

        Returns:
            The perturbed volume, unchanged outside the brain.
        """
        if self.is_identity:
            return volume
        seed_volume = volume if bias_seed_volume is None else bias_seed_volume
        changed = FAMILIES[self.family](volume, brain, self.severity, seed_volume)
        return np.where(brain, changed, volume).astype(np.float32)


def _gamma(volume: Volume, brain: Mask, exponent: float, _: Volume) -> Float[np.ndarray, "z y x"]:
    """Raise the intensities, scaled to 0 to 1 over the brain, to a power."""
    low, high = float(volume[brain].min()), float(volume[brain].max())
    spread = (high - low) or 1.0
    return np.clip((volume - low) / spread, 0, 1) ** exponent * spread + low


def _gibbs(volume: Volume, brain: Mask, share: float, _: Volume) -> Float[np.ndarray, "z y x"]:
    """Cut k-space to a ball, as MONAI's GibbsNoise does.

    The radius is (1 - share) times half the diagonal of a square with the longest side.
    """
    spectrum = np.fft.fftshift(np.fft.fftn(volume.astype(np.float64)))
    centre = [(n - 1) / 2 for n in volume.shape]
    radius = (1 - share) * max(volume.shape) * np.sqrt(2) / 2
    axes = np.ogrid[tuple(slice(n) for n in volume.shape)]
    distance = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True))
    cut = np.where(distance <= radius**2, spectrum, 0)
    ringing: np.ndarray = np.fft.ifftn(np.fft.ifftshift(cut)).real
    return ringing


def _bias(
    volume: Volume, brain: Mask, deviation: float, seed_volume: Volume
) -> Float[np.ndarray, "z y x"]:
    """Multiply by 1 + deviation * field, a random polynomial that spans -1 to 1 over the brain.

    The voxels seed the field: a volume has the same field at every deviation and for every
    encoder, whatever its name.
    """
    digest = hashlib.sha256(np.ascontiguousarray(seed_volume, np.float32).tobytes()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    powers = [
        np.polynomial.polynomial.polyvander(np.linspace(-1, 1, n), DEGREE) for n in volume.shape
    ]
    coefficients = rng.uniform(-1, 1, (DEGREE + 1,) * 3)
    coefficients[np.indices(coefficients.shape).sum(0) > DEGREE] = 0
    field = np.einsum("abc,za,yb,xc->zyx", coefficients, *powers, optimize=True)
    low, high = field[brain].min(), field[brain].max()
    return volume * (1 + deviation * (2 * (field - low) / (high - low) - 1))


FAMILIES: dict[str, Callable[[Volume, Mask, float, Volume], Volume]] = {
    "gamma": _gamma,
    "gibbs": _gibbs,
    "bias": _bias,
}
IDENTITY = {"gamma": 1.0, "gibbs": 0.0, "bias": 0.0}
ALLOWED = {"gamma": (0.05, 20.0), "gibbs": (0.0, 0.95), "bias": (0.0, 0.95)}
PAPER = {
    "gamma": (0.5, 0.8, 1.0, 1.2, 1.5, 2.0),
    "gibbs": (0.0, 0.1, 0.2, 0.3, 0.4),
    "bias": (0.0, 0.1, 0.2, 0.3, 0.4),
}
