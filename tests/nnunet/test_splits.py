"""Folds are those that nnU-Net draws."""

from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_fm.nnunet.splits import draw_folds


def test_folds_are_nnunets_own() -> None:
    cases = [f"case{n}" for n in range(11)]
    folds = draw_folds(cases)
    expected = generate_crossval_split(cases, seed=12345, n_splits=5)
    assert [f["val"] for f in folds] == [[str(c) for c in f["val"]] for f in expected]
    assert all(sorted(f["train"] + f["val"]) == sorted(cases) for f in folds)
    assert all(type(case) is str for f in folds for case in f["val"])
    assert draw_folds(cases, seed=1) != folds
