"""Input sizes that a network takes."""

import pytest

from nnunet_fm.network.input_size import check_patch


def test_check_patch_accepts_multiples() -> None:
    check_patch([256, 16], 16)


@pytest.mark.parametrize(
    ("patch", "step", "dims", "message"),
    [
        (
            [100, 256],
            16,
            2,
            "patch 100x256: .* multiples of 16; nearest possible: 96x256 or 112x256",
        ),
        ([8, 8], 16, 2, "patch 8x8: .* nearest possible: 16x16$"),
        ([0, 16], 16, 2, "patch 0x16: .* nearest possible: 16x16$"),
        ([64], 16, 2, "patch 64; allowed: one side, or 2"),
        ([64, 64], 32, 3, "patch 64x64; allowed: one side, or 3"),
        ([64, 64, 80], 32, 3, "nearest possible: 64x64x64 or 64x64x96"),
    ],
)
def test_other_sizes_are_refused_with_the_nearest_possible_ones(
    patch: list[int], step: int, dims: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_patch(patch, step, dims)
