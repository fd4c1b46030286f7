import numpy as np

from nnunet_fm.data.synthetic import make_case


def test_synthetic_cases_are_functions_of_the_seed_with_nested_tumours() -> None:
    first, again, other = make_case(5), make_case(5), make_case(6)
    assert all((first.images[c] == again.images[c]).all() for c in first.images)
    assert (first.images["T1"] != other.images["T1"]).any()
    assert set(np.unique(first.labels)) == {0, 1, 2, 3}
    brain = first.images["T1"] > 0
    assert 0.1 < brain.mean() < 0.7
    assert brain[first.labels > 0].mean() > 0.99
    enhancing, oedema = first.labels == 3, first.labels == 2
    assert first.images["T1c"][enhancing].mean() > 1.3 * first.images["T1c"][oedema].mean()
    flair = first.images["FLAIR"]
    assert flair[oedema].mean() > 1.2 * flair[brain & (first.labels == 0)].mean()
