"""Fit fine-tuned encoders in the place of heads; finished trainings are read from the disk."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nnunet_fm.encoders import Encoder
from nnunet_fm.features.prepared_volumes import PreparedVolumes
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.heads.finetune.network import FineTunedNetwork
from nnunet_fm.heads.finetune.settings import FineTuneTask
from nnunet_fm.heads.finetune.training import InnerSplit, Training, Vectors, predict, train
from nnunet_fm.heads.fitting import Fitter, TrainingCases
from nnunet_fm.heads.models import Model, Output
from nnunet_fm.heads.models.training_target import Rows, TrainingTarget
from nnunet_fm.heads.models.trivial import TrivialModel
from nnunet_fm.heads.subsets import deal_into_folds, subject_strata
from nnunet_fm.heads.task import Task
from nnunet_fm.internal.atomic_files import replaced_atomically
from nnunet_fm.internal.errors import InputError

NAME = "finetuned"
Keys = Shaped[np.ndarray, " n"]


class FineTunedModel(Model):
    """A fine-tuned encoder; its inputs are the keys of volumes."""

    def __init__(
        self,
        network: FineTunedNetwork,
        volumes: PreparedVolumes,
        target: TrainingTarget,
        batch: int,
    ) -> None:
        self._network, self._volumes = network, volumes
        self._target, self._batch = target, batch

    def predict(self, x: Keys) -> Output:
        """Return probabilities, or values in the units of the target."""
        vectors = _encoder_vectors(self._network, self._volumes, x)
        return self._target.predict(predict(self._network, vectors, len(x), self._batch))


class FineTuner(Fitter):
    """Fine-tunes copies of an encoder.

    Args:
        encoder: of volumes.
        recipe: what its features depend on; its identity names the trainings.
        volumes: that the keys of the data belong to.
        folder: of the finished trainings.
        device: that the encoder is trained on.
        threads: see `Fitter`.
    """

    def __init__(
        self,
        encoder: Encoder,
        recipe: FeatureRecipe,
        volumes: PreparedVolumes,
        folder: Path,
        device: torch.device,
        threads: int,
    ) -> None:
        self._encoder, self._recipe, self._volumes = encoder, recipe, volumes
        self._folder, self._device = folder, device
        self.threads = threads

    def names(self, task: Task, smallest: int) -> list[str]:
        """List the fine-tuned encoder and the trivial baseline."""
        return [NAME, "trivial"]

    def fit(self, name: str, cases: TrainingCases, seed: int) -> Model:
        """Fine-tune the encoder, or read what an earlier process has trained."""
        if name != NAME:
            return TrivialModel(cases.task, cases.x, cases.targets, seed)
        settings = cast(FineTuneTask, cases.task).finetune
        target = TrainingTarget(cases.task, cases.targets, settings.balanced)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of the head
            example = self._volumes.read(cases.x[:1].tolist())
            network = FineTunedNetwork(self._encoder, settings.unfreeze, example, target.outputs)
        network.to(self._device)
        file = self._folder / f"{self._digest(cases, seed)}.safetensors"
        if file.is_file():
            _read(file, network)
        else:
            split = _inner_split(cases, settings.validation, seed)
            vectors = self._training_vectors(network, cases.x, settings.unfreeze == 0)
            done = train(network, vectors, target, split, settings, seed)
            _write(file, network, done)
        return FineTunedModel(network, self._volumes, target, settings.batch_size)

    def _training_vectors(self, network: FineTunedNetwork, keys: Keys, frozen: bool) -> Vectors:
        """Return what computes vectors; those of a frozen encoder are computed once."""
        compute = _encoder_vectors(network, self._volumes, keys)
        if not frozen:
            return compute
        with torch.no_grad():
            once = torch.cat([compute(rows) for rows in torch.arange(len(keys)).split(8)])
        return lambda rows: once[rows.to(once.device)]

    def _digest(self, cases: TrainingCases, seed: int) -> str:
        """Return the identity of a training: everything that its weights depend on."""
        keys = {"kind", "loss", "standardise_target", "finetune"}
        parts = [
            self._recipe.identity(),
            cases.task.model_dump_json(include=keys),
            cases.x.tolist(),
            cases.targets.values.tolist(),
            list(cases.targets.classes),
            list(cases.subjects),
            seed,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _encoder_vectors(
    network: FineTunedNetwork, volumes: PreparedVolumes, keys: Keys
) -> Callable[[Rows], Tensor]:
    device = next(network.parameters()).device
    return lambda rows: network.embed(volumes.read(keys[rows.numpy()].tolist()).to(device))


def _inner_split(cases: TrainingCases, share: float, seed: int) -> InnerSplit:
    """Split the cases by subject, stratified as folds are.

    Raises:
        InputError: too few subjects for both sides.
    """
    count, kind = len(cases.subjects), cases.task.kind
    everything = torch.arange(count)
    if not share:
        return InnerSplit(everything, everything[:0])
    folds = round(1 / share)
    strata = cases.targets.strata(np.arange(count), kind)
    fold = deal_into_folds(subject_strata(cases.subjects, strata, kind), folds)
    chosen = np.array([fold[subject] for subject in cases.subjects]) == seed % folds
    classes = cases.targets.values if cases.targets.classes else np.zeros(count)
    if not chosen.any() or set(classes[~chosen]) < set(classes):
        raise InputError(
            f"{count} training cases are too few for finetune.validation={share:g}: subjects "
            "that choose the epoch, or a class among the others, are missing; type "
            "finetune.validation=0 to keep the last epoch"
        )
    validation = torch.from_numpy(chosen)
    return InnerSplit(everything[~validation], everything[validation])


def _write(file: Path, network: FineTunedNetwork, done: Training) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().cpu().contiguous() for name, p in network.trained().items()}
    about = {key: str(value) for key, value in asdict(done).items()}
    with replaced_atomically(file) as temporary:
        save_file(tensors, temporary, about)


def _read(file: Path, network: FineTunedNetwork) -> None:
    """Load a finished training.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with safe_open(file, "pt") as content:
            names = content.keys()
            tensors = {name: content.get_tensor(name) for name in names}
        network.load_state_dict(tensors, strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"{file} is damaged ({error}); delete it, and rerun the command") from None
    if set(tensors) != set(network.trained()):
        raise InputError(f"{file} holds other tensors; delete it, and rerun the command")
