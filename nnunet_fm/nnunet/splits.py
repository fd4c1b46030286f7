"""nnU-Net's cross-validation folds."""

from collections.abc import Sequence

from nnunetv2.utilities.crossval_split import generate_crossval_split

NNUNET_SEED = 12345  # of the folds that nnU-Net draws by itself
Fold = dict[str, list[str]]


def draw_folds(cases: Sequence[str], seed: int = NNUNET_SEED, folds: int = 5) -> list[Fold]:
    """Draw folds as nnU-Net does.

    Args:
        cases: names of the labelled cases.
        seed: of the draw.
        folds: how many.

    Returns:
        For each fold, the cases of `train` and of `val`.
    """
    drawn = generate_crossval_split(list(cases), seed=seed, n_splits=folds)
    return [
        {side: [str(case) for case in fold[side]] for side in ("train", "val")} for fold in drawn
    ]
