"""Read the features of 2,000 subjects from the cache as one matrix.

An entry has four blocks of 128 x 768. `FeatureCache.matrix` reads the pooled vectors (12 kB per
entry) and compares each with its checksum. The reference is a cache without pooled vectors: it
reads all CLS tokens (0.79 MB per entry) and averages them. Lower bound: 25 MB of pooled vectors
against 1.6 GB. The hashes of the input files come from `hashes.sqlite`; without it, the bytes of
every volume would be read again.

The last line printed is JSON with CPU seconds of this process. `imports_cpu_s` is the time to
import numpy and safetensors (torch is not needed).
"""

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from nnunet_fm.features import FeatureCache, FeatureRecipe, read_table
from nnunet_fm.features.cache import POOLED

LAYERS, SLICES, WIDTH = (2, 5, 8, 11), 128, 768
RECIPE = FeatureRecipe(
    "vit", "ab" * 32, "dinov3_vitb16", {}, LAYERS, "bfloat16", {"strip": "none", "shape": [128] * 3}
)


def make(folder: Path, subjects: int) -> Path:
    """Write a table, a small file per subject, and a cache with the features of all."""
    cache, rng = FeatureCache(folder / "cache"), np.random.default_rng(0)
    with (folder / "t.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("subject_id", "T1"))
        for number in range(subjects):
            (folder / f"{number}.nii").write_text(str(number))
            writer.writerow((f"s{number}", f"{number}.nii"))
    tokens = rng.standard_normal((len(LAYERS), SLICES, WIDTH)).astype(np.float16)
    arrays = {f"cls/{layer}": t for layer, t in zip(LAYERS, tokens, strict=True)}
    arrays[POOLED] = tokens.mean(1, dtype=np.float32)
    table = read_table(folder / "t.csv")
    for row in table.rows:
        cache.write(RECIPE, cache.key_of(RECIPE, row, "T1"), arrays)
    cache.hashes.save()
    return table.file


def pooled(folder: Path) -> np.ndarray:
    """Read the pooled vectors."""
    table = read_table(folder / "t.csv")
    _, matrix = FeatureCache(folder / "cache").matrix(table, layer=11)
    return matrix


def averaged(folder: Path) -> np.ndarray:
    """Read, check and average all tokens."""
    cache, table = FeatureCache(folder / "cache"), read_table(folder / "t.csv")
    entries = (
        cache.read(RECIPE, cache.key_of(RECIPE, row, "T1"), [f"cls/{n}" for n in LAYERS])
        for row in table.rows
    )
    return np.stack(
        [entry["cls/11"].mean(0, dtype=np.float32) for entry in entries if entry is not None]
    )


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=2000)
    subjects = parser.parse_args().subjects
    started_with = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), subjects)
        seconds = {}
        for kind, function in (("ours", pooled), ("tokens", averaged)):
            started = time.process_time()
            assert function(Path(name)).shape == (subjects, WIDTH)
            seconds[f"{kind}_cpu_s"] = round(time.process_time() - started, 2)
    result = {"subjects": subjects, "imports_cpu_s": round(started_with, 2), **seconds}
    print(
        json.dumps({**result, "ratio": round(seconds["tokens_cpu_s"] / seconds["ours_cpu_s"], 1)})
    )


if __name__ == "__main__":
    main()
