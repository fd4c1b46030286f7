"""Subjects with small volumes, and tables that name them."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (6, 32, 32)


def write_volume_file(path: Path, seed: int, shape: tuple[int, ...] = (20, 24, 18)) -> Path:
    """Write a noisy ellipsoid on a background of 0."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum((g / 0.8) ** 2 for g in grid) < 1
    values = (100 + 40 * grid[1] + 10 * rng.standard_normal(shape)) * inside
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), path)
    return path


def touch_images(root: Path, *names: str) -> Path:
    """Make empty files `NAME.nii.gz`, for what reads nothing but names."""
    for name in names:
        path = root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows with the same columns as a CSV or TSV."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(
            stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ","
        )
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_subject_table(folder: Path) -> Path:
    """Write four subjects with a T1 volume, three of them with FLAIR, and their table."""
    rows = []
    for subject in range(4):
        row = {
            "subject_id": f"Sübject {subject}",
            "age": 20 + subject,
            "T1": f"{subject}/t1.nii.gz",
            "FLAIR": "n/a",
        }
        write_volume_file(folder / str(row["T1"]), 2 * subject)
        if subject:
            row["FLAIR"] = f"{subject}/flair.nii.gz"
            write_volume_file(folder / str(row["FLAIR"]), 2 * subject + 1)
        rows.append(row)
    return write_table(folder / "t.csv", rows)


def write_noise_volume(
    path: Path, seed: int, affine: np.ndarray | None = None, kind: type = np.int16, pad: int = 0
) -> None:
    """Write noise of 18x20x22 voxels; an affine with a negative first axis mirrors the voxels."""
    voxels = np.random.default_rng(seed).integers(1, 900, (18, 20, 22))
    if affine is not None and affine[0, 0] < 0:
        voxels = voxels[::-1]
    nib.Nifti1Image(
        np.pad(voxels, pad).astype(kind), np.eye(4) if affine is None else affine
    ).to_filename(path)


def write_lines(folder: Path, lines: list[str], header: str = "subject_id,T1,split") -> Path:
    """Write a table from the text of its lines."""
    (folder / "t.csv").write_text("\n".join([header, *lines]))
    return folder / "t.csv"
