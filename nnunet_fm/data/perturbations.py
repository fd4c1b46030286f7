"""Contrast, Gibbs ringing and bias field on raw volumes, to see what a model bears (BrainDINO, section 4.4).

The paper gives severities and no definitions; these are exact at severity "none" and never leave
the clean brain mask, so that cropping and z-scores see the same voxels as without them.
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
    """One family at one severity.

    Attributes:
        family: `gamma` (exponent; 1 is none), `gibbs` (share of k-space's radius that is cut, 0 is
            none) or `bias` (deviation of the field from 1, 0 is none).
        severity: see the family.

    Raises:
        ValueError: unknown family, or a severity outside what it allows.
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
        """From `FAMILY=SEVERITY`, e.g. `gibbs=0.2`.

        Raises:
            ValueError: something else.
        """
        family, _, severity = text.partition("=")
        try:
            return cls(family, float(severity))
        except ValueError as error:
            if str(error).startswith("could not convert"):
                raise InputError(
                    f"{text!r} is no perturbation; allowed: FAMILY=SEVERITY, e.g. gibbs=0.2"
                ) from None
            raise

    @classmethod
    def of(cls, identity: dict[str, Any] | None) -> "Perturbation | None":
        """The inverse of `identity`.

        Raises:
            ValueError: another version of this code made it.
        """
        if identity is None:
            return None
        if identity["version"] != VERSION:
            raise InputError(
                f"perturbation of version {identity['version']}; this code makes version {VERSION}"
            )
        return cls(identity["family"], identity["severity"])

    def identity(self) -> dict[str, Any] | None:
        """Part of a feature recipe; None if it changes nothing, so that clean volumes are clean volumes."""
        return (
            None
            if self.is_none
            else {"family": self.family, "severity": self.severity, "version": VERSION}
        )

    @property
    def is_none(self) -> bool:
        """Whether it changes nothing."""
        return self.severity == NONE[self.family]

    def __call__(self, volume: Volume, brain: Mask, field_of: Volume | None = None) -> Volume:
        """The perturbed volume; outside the brain it stays as it was.

        Args:
            volume: raw intensities, (z, y, x).
            brain: mask found on this, the clean volume.
            field_of: clean volume whose voxels seed the bias field, e.g. one modality for all of a
                case; itself if None.
        """
        if self.is_none:
            return volume
        changed = FAMILIES[self.family](
            volume, brain, self.severity, volume if field_of is None else field_of
        )
        return np.where(brain, changed, volume).astype(np.float32)


def _gamma(volume: Volume, brain: Mask, exponent: float, _: Volume) -> Float[np.ndarray, "z y x"]:
    """Power of the intensities, scaled to 0 to 1 over the brain."""
    low, high = float(volume[brain].min()), float(volume[brain].max())
    spread = (high - low) or 1.0
    return np.clip((volume - low) / spread, 0, 1) ** exponent * spread + low


def _gibbs(volume: Volume, brain: Mask, share: float, _: Volume) -> Float[np.ndarray, "z y x"]:
    """K-space cut to a ball, as MONAI's GibbsNoise: (1 - share) of half a square's diagonal of the longest side."""
    spectrum = np.fft.fftshift(np.fft.fftn(volume.astype(np.float64)))
    centre = [(n - 1) / 2 for n in volume.shape]
    radius = (1 - share) * max(volume.shape) * np.sqrt(2) / 2
    squares = np.ogrid[tuple(slice(n) for n in volume.shape)]
    distance = sum((axis - c) ** 2 for axis, c in zip(squares, centre, strict=True))
    cut = np.where(distance <= radius**2, spectrum, 0)
    ringing: np.ndarray = np.fft.ifftn(np.fft.ifftshift(cut)).real
    return ringing


def _bias(
    volume: Volume, brain: Mask, deviation: float, field_of: Volume
) -> Float[np.ndarray, "z y x"]:
    """Times 1 + deviation * field; the field is a random polynomial that reaches from -1 to 1 over the brain.

    The voxels seed it: one volume has the same field at every deviation and for every encoder,
    whatever its name.
    """
    digest = hashlib.sha256(np.ascontiguousarray(field_of, np.float32).tobytes()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    powers_of = [
        np.polynomial.polynomial.polyvander(np.linspace(-1, 1, n), DEGREE) for n in volume.shape
    ]
    coefficients = rng.uniform(-1, 1, (DEGREE + 1,) * 3)
    coefficients[np.indices(coefficients.shape).sum(0) > DEGREE] = 0
    field = np.einsum("abc,za,yb,xc->zyx", coefficients, *powers_of, optimize=True)
    low, high = field[brain].min(), field[brain].max()
    return volume * (1 + deviation * (2 * (field - low) / (high - low) - 1))


FAMILIES: dict[str, Callable[[Volume, Mask, float, Volume], Volume]] = {
    "gamma": _gamma,
    "gibbs": _gibbs,
    "bias": _bias,
}
NONE = {"gamma": 1.0, "gibbs": 0.0, "bias": 0.0}
ALLOWED = {"gamma": (0.05, 20.0), "gibbs": (0.0, 0.95), "bias": (0.0, 0.95)}
PAPER = {
    "gamma": (0.5, 0.8, 1.0, 1.2, 1.5, 2.0),
    "gibbs": (0.0, 0.1, 0.2, 0.3, 0.4),
    "bias": (0.0, 0.1, 0.2, 0.3, 0.4),
}
