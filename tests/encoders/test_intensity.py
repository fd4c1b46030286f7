import numpy as np

from nnunet_fm.encoders.intensity import rescale_intensity
from nnunet_fm.features.opening import open_encoder


def test_volumes_are_rescaled_to_the_intensities_of_the_encoder() -> None:
    brain = np.zeros((4, 5, 6), np.float32)
    brain[1:3, 1:4, 1:5] = np.random.default_rng(0).normal(size=(2, 3, 4))
    inside = brain != 0
    assert rescale_intensity(brain, "z-score") is brain
    unit = rescale_intensity(brain, "0 to 1")
    assert (unit[inside].min(), unit[inside].max(), unit[~inside].max()) == (0, 1, 0)
    assert np.corrcoef(unit[inside], brain[inside])[0, 1] > 0.999
    everywhere = rescale_intensity(brain, "z-score of all voxels")
    np.testing.assert_allclose([everywhere.mean(), everywhere.std()], [0, 1], atol=1e-5)
    assert everywhere[~inside].max() == everywhere.min()
    recipes = [
        open_encoder(name)[1].preprocessing for name in ("volume_test16", "volume_testuniformer")
    ]
    assert "intensity" not in recipes[0]
    assert recipes[1]["intensity"] == "0 to 1"
