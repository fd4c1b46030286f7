"""Fit fine-tuned encoders in the place of heads; finished trainings are read from the disk."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from nnunet_fm.encoders import Encoder
from nnunet_fm.features.cache_entry import DamagedEntryError, read_entry, write_entry
from nnunet_fm.features.prepared_volumes import PreparedVolumes
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.heads.finetune.inner_split import inner_split
from nnunet_fm.heads.finetune.network import FineTunedNetwork, vectors_of
from nnunet_fm.heads.finetune.settings import FineTuneTask, FineTuning
from nnunet_fm.heads.finetune.training import Vectors, outputs_of, train
from nnunet_fm.heads.fitting import Fitter, TrainingCases
from nnunet_fm.heads.models import Model, Output
from nnunet_fm.heads.models.training_target import Rows, TrainingTarget
from nnunet_fm.heads.models.trivial import TrivialModel
from nnunet_fm.heads.task import Task
from nnunet_fm.internal.errors import InputError

logger = logging.getLogger(__name__)

NAME = "finetuned"
VERSION = 1  # raised whenever the same training gives other weights
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
        with torch.inference_mode():
            outputs = outputs_of(self._network, vectors, torch.arange(len(x)), self._batch)
        return self._target.predict(outputs)


class FineTuner(Fitter):
    """Fine-tunes copies of an encoder.

    Args:
        encoder: of volumes; it is moved to the device.
        recipe: what its features depend on; its identity names the trainings.
        volumes: that the keys of the data belong to.
        folder: of the finished trainings, of any run.
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
        self._encoder, self._recipe, self._volumes = encoder.to(device).eval(), recipe, volumes
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
        width = self._width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of the head
            network = FineTunedNetwork(self._encoder, settings.unfreeze, width, target.outputs)
        network.to(self._device)
        key = self._key(cases, seed)
        file = self._folder / f"{key}.safetensors"
        if file.is_file():
            _read(file, key, network)
        else:
            split = inner_split(cases, settings.validation, seed)
            vectors = self._training_vectors(network, cases.x, settings)
            done = train(network, vectors, target, split, settings, seed)
            logger.info("kept epoch %d of %d, validation loss %.3f", *astuple(done))
            _write(file, key, network)
        return FineTunedModel(network, self._volumes, target, settings.batch_size)

    @cached_property
    def _width(self) -> int:
        """Length of the encoder's vector; the volumes are prepared for it."""
        self._volumes.prepare()
        example = self._volumes.read(self._volumes.keys[:1]).to(self._device)
        with torch.inference_mode():
            return vectors_of(self._encoder, example).shape[1]

    def _training_vectors(
        self, network: FineTunedNetwork, keys: Keys, settings: FineTuning
    ) -> Vectors:
        """Return what computes vectors; those of a frozen encoder are computed once."""
        compute = _encoder_vectors(network, self._volumes, keys)
        if settings.unfreeze != 0:
            return compute
        batches = torch.arange(len(keys)).split(settings.batch_size)
        with torch.no_grad():
            once = torch.cat([compute(rows) for rows in batches])
        return lambda rows: once[rows.to(once.device)]

    def _key(self, cases: TrainingCases, seed: int) -> str:
        """Return the identity of a training: everything that its weights depend on."""
        settings = {"kind", "loss", "standardise_target", "finetune"}
        parts = [
            VERSION,
            self._recipe.identity(),
            cases.task.model_dump_json(include=settings),
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


def _write(file: Path, key: str, network: FineTunedNetwork) -> None:
    """Keep the trained tensors, with their checksums."""
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: p.detach().cpu().numpy() for name, p in network.trained().items()}
    write_entry(file, key, arrays)


def _read(file: Path, key: str, network: FineTunedNetwork) -> None:
    """Load a finished training.

    Raises:
        InputError: the file is damaged.
    """
    try:
        arrays = read_entry(file, key, list(network.trained()))
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        network.load_state_dict(tensors, strict=False)
    except (DamagedEntryError, KeyError, RuntimeError) as error:
        raise InputError(f"{file} is damaged ({error}); delete it, and rerun the command") from None
