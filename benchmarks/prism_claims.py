"""What a run of PRISM learned, on scans that it did not see.

* `reconstruction`: absolute error of masked crops, of all voxels and of the hidden ones, beside
  predicting zero and the mean image of the sequence in the training scans.
* `parameters`: TR, TE and flip angle within one sequence: R2 of the run's own head, and of ridge
  regression on each branch. 0 is as good as the mean; across sequences it would be their identity.
* `branches`: for the vectors of anatomy, of sequence and of the whole map, how often the nearest
  scan of another sequence is the same person's, and how often a linear model names the sequence.
* `translation`: correlation of the edges of translated images with those of their input, and of
  another person's; and how far the histograms of two styles of one scan lie apart, beside those of
  two scans in one style (Wasserstein distances).

    python benchmarks/prism_claims.py RUN TRAINING_STORE HELD_OUT_STORE [--random]

The last line printed is JSON. Crops are the middle of each volume.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_gradient_magnitude
from scipy.stats import wasserstein_distance
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nnunet_fm.data.preprocessing import centre_fit
from nnunet_fm_pretrain.data.acquisition import PARAMETERS
from nnunet_fm_pretrain.data.records import VolumeRecord
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.methods.prism.crops import log_acquisition
from nnunet_fm_pretrain.methods.prism.masking import mask_blocks
from pretraining_run import read_objective

BATCH = 16
PENALTIES = np.logspace(-2, 4, 13)
FEWEST = 10  # scans whose parameter is known, to fit or to score
SAME = 1e-6  # largest range of logarithms of a parameter that does not vary
Numbers = dict[str, Any]


class Scans(NamedTuple):
    """The middle crops of a store, and what is known of them.

    Attributes:
        records: of the volumes.
        crops: z-scores.
        vectors: means of the maps, by `anatomy`, `sequence` and `whole`.
    """

    records: Sequence[VolumeRecord]
    crops: np.ndarray
    vectors: dict[str, np.ndarray]

    @property
    def sequences(self) -> np.ndarray:
        """The sequence of each scan."""
        return np.array([record.sequence for record in self.records])


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("training", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--random", action="store_true", help="the initial weights of the run")
    parsed = parser.parse_args()
    objective = read_objective(parsed.run, parsed.random)
    # which notes the statistics of TR, TE and flip angle
    objective.batches(VolumeStore(parsed.training), 0, 1)
    training, held_out = (
        read_scans(objective, VolumeStore(folder)) for folder in (parsed.training, parsed.held_out)
    )
    found = {
        "scans": len(held_out.records),
        "reconstruction": reconstruction(objective, training, held_out),
        "parameters": parameters(objective, training, held_out),
        "branches": branches(training, held_out),
        "translation": translation(objective, held_out),
    }
    print(json.dumps(found))


@torch.no_grad()
def read_scans(objective: Any, store: VolumeStore) -> Scans:
    """Read the middle crop of each volume, and encode it."""
    side = (objective.recipe.views.size,) * 3
    crops = np.stack([centre_fit(store.read_volume(r), side) for r in store.records])
    vectors: dict[str, list[np.ndarray]] = {"anatomy": [], "sequence": [], "whole": []}
    for part in np.array_split(crops, math.ceil(len(crops) / BATCH)):
        divided = objective.divide(torch.from_numpy(part)[:, None])
        maps = (divided.anatomy, divided.sequence, divided.deepest)
        for rows, value in zip(vectors.values(), maps, strict=True):
            rows.append(value.mean((2, 3, 4)).numpy())
    return Scans(store.records, crops, {k: np.concatenate(v) for k, v in vectors.items()})


@torch.no_grad()
def reconstruction(objective: Any, training: Scans, held_out: Scans) -> Numbers:
    """Return the mean absolute errors of masked crops and of trivial predictions."""
    means = {s: training.crops[training.sequences == s].mean(0) for s in set(training.sequences)}
    errors: dict[str, list[float]] = {}
    masking = objective.recipe.views.masking
    for number, crop in enumerate(held_out.crops):
        other = held_out.crops[(number + 1) % len(held_out.crops)]
        masked = mask_blocks(crop, other, masking, np.random.default_rng(number))
        seen = torch.from_numpy(masked.voxels)[None, None]
        guess = objective.reconstruct(objective.divide(seen))[0, 0].numpy()
        mean = means.get(held_out.records[number].sequence, training.crops.mean(0))
        for name, image in (("model", guess), ("zero", 0 * crop), ("mean_image", mean)):
            error = np.abs(image - crop)
            errors.setdefault(name, []).append(float(error.mean()))
            errors.setdefault(f"hidden_{name}", []).append(float(error[masked.hidden].mean()))
    return {name: round(float(np.mean(values)), 3) for name, values in errors.items()}


@torch.no_grad()
def parameters(objective: Any, training: Scans, held_out: Scans) -> Numbers:
    """Return R2 within each sequence for each parameter that varies there."""
    predicted = objective.heads["metadata"](torch.from_numpy(held_out.vectors["sequence"]))
    own = (predicted * objective.acquisition_std + objective.acquisition_mean).numpy()
    learned, tested = (
        np.stack([log_acquisition(r) for r in scans.records]) for scans in (training, held_out)
    )
    found: Numbers = {}
    for sequence in sorted(set(held_out.sequences)):
        rows, columns = training.sequences == sequence, held_out.sequences == sequence
        for number, name in enumerate(PARAMETERS):
            fitted = rows & ~np.isnan(learned[:, number])
            scored = columns & ~np.isnan(tested[:, number])
            truth = tested[scored, number]
            if min(fitted.sum(), scored.sum()) < FEWEST or np.ptp(truth) < SAME:
                continue
            scores = {"scans": float(len(truth)), "head": r_squared(own[scored, number], truth)}
            for branch in ("sequence", "anatomy", "whole"):
                model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
                model.fit(training.vectors[branch][fitted], learned[fitted, number])
                guess = model.predict(held_out.vectors[branch][scored])
                scores[branch] = r_squared(guess, truth)
            found[f"{sequence} {name}"] = scores
    return found


def r_squared(guess: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of the variance that is explained."""
    return round(float(1 - ((guess - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()), 3)


def branches(training: Scans, held_out: Scans) -> Numbers:
    """Return for each vector how well it finds the person, and names the sequence."""
    found: Numbers = {}
    for name, vectors in held_out.vectors.items():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(training.vectors[name], training.sequences)
        accuracy = model.score(vectors, held_out.sequences)
        person, chance = same_person(vectors, held_out)
        found[name] = {"same_person": person, "sequence": round(float(accuracy), 3)}
    found["by_chance"] = {"same_person": chance, "sequence": share_of_largest(held_out.sequences)}
    return found


def same_person(vectors: np.ndarray, scans: Scans) -> tuple[float, float]:
    """Return how often the nearest scan of another sequence is of the same person, and by chance.

    Vectors are compared by cosine, after the mean of each sequence is subtracted.
    """
    people = np.array([f"{r.dataset}/{r.subject}" for r in scans.records])
    centred = vectors.copy()
    for sequence in set(scans.sequences):
        rows = scans.sequences == sequence
        centred[rows] -= centred[rows].mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True) + 1e-12
    hits, chances = [], []
    for one in sorted(set(scans.sequences)):
        for other in sorted(set(scans.sequences) - {one}):
            rows, columns = scans.sequences == one, scans.sequences == other
            possible = np.isin(people[rows], people[columns])
            nearest = people[columns][(centred[rows] @ centred[columns].T).argmax(1)]
            hits += (nearest == people[rows])[possible].tolist()
            chances += [1 / columns.sum()] * int(possible.sum())
    return round(float(np.mean(hits)), 3), round(float(np.mean(chances)), 3)


def share_of_largest(labels: np.ndarray) -> float:
    """Return the accuracy of always naming the most frequent label."""
    return round(float(np.unique(labels, return_counts=True)[1].max() / len(labels)), 3)


@torch.no_grad()
def translation(objective: Any, scans: Scans) -> Numbers:
    """Compare translated images with their inputs, edges and histograms."""
    width = objective.encoder.deepest
    styles = torch.from_numpy(np.random.default_rng(0).standard_normal((2, width), np.float32))
    crops = torch.from_numpy(scans.crops)[:, None]
    made: list[np.ndarray] = []
    for style in styles:
        parts = [
            objective.translate(objective.divide(part), style.expand(len(part), -1))
            for part in crops.split(BATCH)
        ]
        made.append(torch.cat(parts)[:, 0].numpy())
    people = np.array([f"{r.dataset}/{r.subject}" for r in scans.records])
    own, others, between_styles, between_scans = [], [], [], []
    for number, crop in enumerate(scans.crops):
        strangers = np.flatnonzero(people != people[number])
        stranger = int(strangers[number % len(strangers)])
        head = crop != 0
        edges = [gaussian_gradient_magnitude(image[number], 1.0)[head] for image in made]
        for found, input_ in ((own, crop), (others, scans.crops[stranger])):
            given = gaussian_gradient_magnitude(input_, 1.0)[head]
            found += [float(np.corrcoef(edge, given)[0, 1]) for edge in edges]
        between_styles.append(wasserstein_distance(made[0][number][head], made[1][number][head]))
        theirs = made[0][stranger][scans.crops[stranger] != 0]
        between_scans.append(wasserstein_distance(made[0][number][head], theirs))
    numbers = {
        "edges_own": own,
        "edges_other_person": others,
        "histogram_between_styles": between_styles,
        "histogram_between_scans": between_scans,
    }
    return {name: round(float(np.mean(values)), 3) for name, values in numbers.items()}


if __name__ == "__main__":
    main()
