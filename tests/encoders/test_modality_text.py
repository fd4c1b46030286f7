"""Vectors of names: the same everywhere, and alike for names that are alike."""

import hashlib

import numpy as np
import pytest

from nnunet_fm.encoders.modality_text import ModalityText, hashed, normalised


def test_hashed_vectors_are_what_they_were() -> None:
    """Weights are trained with them: another value would be another sequence."""
    vectors = np.stack([hashed(name, 64) for name in ("T1", "FLAIR")]).astype("<f4")
    digest = hashlib.sha256(vectors.tobytes()).hexdigest()
    assert digest[:16] == "9837691f77d4f19e"
    assert np.mean(vectors**2, axis=1) == pytest.approx([1, 1])
    assert np.array_equal(hashed("flair", 64), hashed("FLAIR", 64))


def test_names_alike_have_vectors_alike() -> None:
    names = ("T1", "T1c", "FLAIR", "T2 FLAIR", "ADC")
    vectors = np.stack([hashed(name, 768) for name in names])
    cosines = vectors @ vectors.T / 768
    assert cosines[0, 1] > 0.25
    assert cosines[2, 3] > 0.25
    assert np.abs(cosines[0, [2, 4]]).max() < 0.15


def test_tables_are_centred_and_scaled() -> None:
    table = np.random.default_rng(0).normal(5, 2, (4, 32))
    made = normalised(table)
    assert np.abs(made.mean(0)).max() < 1e-12
    assert np.mean(made**2) == pytest.approx(1)
    with pytest.raises(ValueError, match="two names or more"):
        normalised(table[:1])


def test_text_of_a_table_needs_weights() -> None:
    text = ModalityText(("T1", "T2"), 16, "table")
    text.check(["T2"])
    with pytest.raises(ValueError, match="the vectors come with trained weights"):
        text.of(["T1"])
