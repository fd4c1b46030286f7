"""What a run of BrainFM-MRI learned, on sessions that it did not see.

* Reconstruction of hidden voxels (`error`), beside predicting zero and the mean image of the
  training sessions, and with the names of a session's scans exchanged (`exchanged`).
* The same for one scan of a session when nothing else is visible (`alone`), when another scan of
  the session is visible as far as in training (`beside`), and whole (`beside_whole`).
* Features: the share of sessions whose two-scan vector is nearest to the one-scan vector of the
  same session, among all sessions with the same sequences (`own_nearest`), and by chance.

    python benchmarks/brainfm_claims.py RUN TRAINING_STORE HELD_OUT_STORE

The last line printed is JSON; errors are means over sessions, of z-scores squared.
"""

import argparse
import json
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.methods.brainfm.batches import inside_voxels, valid_patches
from nnunet_fm_pretrain.methods.brainfm.objective import BrainFM, in_patches
from nnunet_fm_pretrain.methods.brainfm.sessions import Scan, SessionSource
from pretraining_run import read_objective

Numbers = dict[str, list[float]]


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("training", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--random", action="store_true", help="the initial weights of the run")
    parsed = parser.parse_args()
    objective = read_objective(parsed.run, parsed.random)
    training, held_out = (
        read_all(objective, folder) for folder in (parsed.training, parsed.held_out)
    )
    means = mean_images(training)
    unseen = {scan.name for scans in held_out for scan in scans} - set(means)
    if unseen:
        names = ", ".join(objective.recipe.sessions.names[name] for name in sorted(unseen))
        parser.error(f"{parsed.held_out} has {names}, and {parsed.training} has none of it")
    found = reconstruction(objective, held_out, means)
    found |= one_scan(objective, held_out)
    numbers = {key: round(float(np.mean(values)), 4) for key, values in found.items()}
    numbers |= {"sessions": len(held_out), **nearest(objective, held_out)}
    print(json.dumps(numbers))


def read_all(objective: BrainFM, folder: Path) -> list[list[Scan]]:
    """Read all sessions unchanged; names are numbered as in the recipe."""
    store, recipe = VolumeStore(folder), objective.recipe.sessions
    found = {record.sequence for record in store.records}
    names = tuple(name for name in recipe.names if name in found)
    still = {"names": names, "flip": 0.0, "scale": 0.0, "noise": 0.0}
    source = SessionSource(store, recipe.model_copy(update=still))
    sessions = [source.read(n, np.random.default_rng(0)) for n in range(len(source))]
    return [
        [s._replace(name=recipe.names.index(names[s.name])) for s in scans] for scans in sessions
    ]


def mean_images(sessions: list[list[Scan]]) -> dict[int, np.ndarray]:
    """Return the mean of each sequence, voxel by voxel."""
    images: dict[int, list[np.ndarray]] = {}
    for session in sessions:
        for scan in session:
            images.setdefault(scan.name, []).append(scan.voxels)
    return {name: np.mean(stack, axis=0) for name, stack in images.items()}


class Session:
    """The scans of a session as a batch of one, and what its patches hold."""

    def __init__(self, objective: BrainFM, scans: list[Scan]) -> None:
        self.objective = objective
        self.volumes = torch.from_numpy(np.stack([s.voxels for s in scans]))[None]
        self.inside = torch.from_numpy(np.stack([s.inside for s in scans]))[None]
        self.names = torch.tensor([[s.name for s in scans]])
        side = self.volumes.shape[-1]
        self.valid = valid_patches(self.inside, side, objective.patch)[0]
        self.voxels_inside = in_patches(inside_voxels(self.inside, side), objective.patch)

    def drawn(self, scans: int, seed: int) -> Tensor:
        """Return which patches of the first scans are visible under the recipe's mask ratio."""
        numbers = np.flatnonzero(self.valid[:scans].numpy())
        hidden = round(self.objective.recipe.objective.mask_ratio * len(numbers))
        visible = torch.zeros_like(self.valid).flatten()
        visible[np.random.default_rng(seed).permutation(numbers)[hidden:]] = True
        return visible.view_as(self.valid)

    @torch.no_grad()
    def predicted(self, visible: Tensor, names: Tensor | None = None) -> Tensor:
        """Return the voxels of all patches, predicted from the visible ones."""
        text = self.objective.encoder.text.table[self.names if names is None else names]
        seen = self.objective.encode(self.volumes, text, visible.flatten()[None])
        return self.objective.decoder(seen, text, self.valid.flatten()[None])

    def error(self, guess: Tensor, hidden: Tensor) -> float:
        """Return the mean squared error over the voxels of hidden patches inside the scans."""
        counted = self.voxels_inside & hidden.flatten()[None, :, None]
        return float(
            ((guess - in_patches(self.volumes, self.objective.patch)) ** 2)[counted].mean()
        )

    @torch.no_grad()
    def vector(self) -> Tensor:
        """Return the mean of all tokens that lie inside the scans."""
        text = self.objective.encoder.text.table[self.names]
        seen = self.objective.encode(self.volumes, text, self.valid.flatten()[None])
        return seen.tokens[0].mean(0)


def reconstruction(
    objective: BrainFM, sessions: list[list[Scan]], means: dict[int, np.ndarray]
) -> Numbers:
    """Return the errors of each session, and of trivial predictions."""
    found: Numbers = {key: [] for key in ("error", "zero", "mean_image", "several", "exchanged")}
    for number, scans in enumerate(sessions):
        session = Session(objective, scans)
        visible = session.drawn(len(scans), number)
        hidden = session.valid & ~visible
        image = torch.from_numpy(np.stack([means[s.name] for s in scans]))[None]
        error = session.error(session.predicted(visible), hidden)
        found["error"].append(error)
        found["mean_image"].append(session.error(in_patches(image, objective.patch), hidden))
        found["zero"].append(session.error(torch.zeros(()), hidden))
        if len(scans) > 1:
            exchanged = session.predicted(visible, session.names.roll(1, 1))
            found["several"].append(error)
            found["exchanged"].append(session.error(exchanged, hidden))
    return found


def one_scan(objective: BrainFM, sessions: list[list[Scan]]) -> Numbers:
    """Return the errors of a scan by itself, and beside a whole other one of the session."""
    found: Numbers = {"alone": [], "beside": [], "beside_whole": []}
    for number, scans in enumerate(sessions):
        for pair in permutations(scans, 2):
            single, both = Session(objective, list(pair[:1])), Session(objective, list(pair))
            visible = single.drawn(1, number)
            hidden = single.valid & ~visible
            found["alone"].append(single.error(single.predicted(visible), hidden))
            counted = torch.cat([hidden, torch.zeros_like(hidden)])
            other = Session(objective, list(pair[1:]))
            for key, seen in (
                ("beside", other.drawn(1, number + 1)),
                ("beside_whole", other.valid),
            ):
                guess = both.predicted(torch.cat([visible, seen]))
                found[key].append(both.error(guess, counted))
    return found


def nearest(objective: BrainFM, sessions: list[list[Scan]]) -> dict[str, float]:
    """Match vectors of {A, B} with vectors of {A} of the same session, by cosine."""
    shares, chance = [], []
    for pair in permutations(range(len(objective.recipe.sessions.names)), 2):
        by_name = [{scan.name: scan for scan in scans} for scans in sessions]
        chosen = [[scans[n] for n in pair] for scans in by_name if set(pair) <= set(scans)]
        if len(chosen) < 3:
            continue
        both = torch.stack([Session(objective, scans).vector() for scans in chosen])
        one = torch.stack([Session(objective, scans[:1]).vector() for scans in chosen])
        both, one = both - both.mean(0), one - one.mean(0)
        cosines = torch.nn.functional.cosine_similarity(one[:, None], both[None], dim=-1)
        own = cosines.argmax(1) == torch.arange(len(chosen))
        shares.append(float(own.float().mean()))
        chance.append(1 / len(chosen))
    means = {"own_nearest": np.mean(shares), "by_chance": np.mean(chance)}
    return {key: round(float(value), 3) for key, value in means.items()}


if __name__ == "__main__":
    main()
