"""Small cases with the file names of BraTS."""

from pathlib import Path

from nnunet_fm.data.synthetic import SUFFIXES, make_case, write_image


def write_small_brats(folder: Path, cases: int, labelled: int) -> None:
    """Write cases of 6x48x48 voxels; the first `labelled` ones have a segmentation."""
    for seed in range(cases):
        case = make_case(seed, shape=(6, 48, 48), spacing=(6.0, 3.0, 3.0))
        name = f"BraTS-T-{seed:05d}"
        (folder / name).mkdir(parents=True)
        for channel, suffix in SUFFIXES.items():
            write_image(
                case.images[channel], case.spacing, folder / name / f"{name}-{suffix}.nii.gz"
            )
        if seed < labelled:
            write_image(case.labels, case.spacing, folder / name / f"{name}-seg.nii.gz")
