"""The training loop: any objective, any number of devices, exact to resume."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import yaml
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from nnunet_fm.encoders import get_card, load_encoder
from nnunet_fm.internal.device import keep_freed_memory
from nnunet_fm.internal.errors import InputError, NonFiniteError
from nnunet_fm.internal.files import write_text
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.export import DERIVATIVE, OWN
from nnunet_fm_pretrain.engine.log import Progress
from nnunet_fm_pretrain.engine.objective import Losses, Objective
from nnunet_fm_pretrain.engine.optimiser import (
    clip_gradients,
    learning_rate,
    make_optimiser,
    set_learning_rate,
)
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.engine.recipe_files import differences, parse_recipe
from nnunet_fm_pretrain.methods.braindino.batches import loader
from nnunet_fm_pretrain.methods.registry import make_objective

logger = logging.getLogger(__name__)

RECIPE = "recipe.yaml"
CALM = 1000  # steps, or a tenth of the run, in which uniform targets are no reason for alarm
FIRST_PHASE = 4  # number of the first phase's random stream, as in runs of version 0.1
RECOMPILES = 256  # torch.compile specialises on each block's stochastic depth and on each crop size; its default is 8


def make_fabric(recipe: Recipe, accelerator: str = "auto") -> Fabric:
    """Devices as torchrun or srun gave them; without either, one device (all GPUs if there are some)."""
    environment = os.environ
    ranks = int(environment.get("WORLD_SIZE", environment.get("SLURM_NTASKS", 1)))
    local = int(
        environment.get("LOCAL_WORLD_SIZE", environment.get("SLURM_NTASKS_PER_NODE", ranks))
    )
    alone = ranks == 1
    devices: Any = (
        ("auto" if torch.cuda.is_available() and accelerator != "cpu" else 1) if alone else local
    )
    strategy = (
        "auto"
        if alone and not torch.cuda.device_count() > 1
        else DDPStrategy(broadcast_buffers=False)
    )
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=max(1, ranks // local),
        strategy=strategy,
        precision=recipe.run.precision,
    )


class Engine:
    """One run in one folder.

    Args:
        recipe: what is trained.
        store: the slices.
        run: folder of the run; a run that is there already is continued.
        start: run folder or checkpoint whose weights this run starts from (stage 2).
        fabric: devices; launched.

    Raises:
        ValueError: the folder holds another run, or the store has changed.
    """

    def __init__(
        self, recipe: Recipe, store: SliceStore, run: Path, start: Path | None, fabric: Fabric
    ) -> None:
        self.recipe, self.store, self.run, self.fabric = recipe, store, run, fabric
        found = checkpoints.checkpoints(run)
        former = checkpoints.load(found[-1]) if found else None
        if former:
            self._check_same(former)
        elif start is not None and recipe.encoder.init != "scratch":
            raise InputError(
                f"both --from {start} and encoder.init={recipe.encoder.init}; allowed: one of them"
            )
        elif recipe.stage == 2 and start is None:
            raise InputError("a stage 2 recipe starts from a stage 1 run; add: --from RUN")
        self.objective: Objective = make_objective(recipe)
        self.step = self.bad_steps = 0
        self.alarmed = False
        self.licence, self.seen = OWN, set(store.subjects())
        if former is None:
            self._initialise(start)
        self.optimisers = {
            phase: make_optimiser(self.objective.owned(phase), recipe.optimiser)
            for phase in self.objective.all_phases
        }
        if recipe.run.compile and fabric.device.type == "cuda":
            torch._dynamo.config.recompile_limit = RECOMPILES
            for module in self.objective.modules():
                if type(module).__name__ == "EvaBlock":
                    module.compile()
        if fabric.device.type == "cpu":
            keep_freed_memory()
        self.model, *set_up = fabric.setup(self.objective, *self.optimisers.values())
        self.set_up = dict(zip(self.optimisers, set_up, strict=True))
        if former:
            self._restore(former)  # now that everything is where it will stay
        if fabric.global_rank == 0 and former is None:
            run.mkdir(parents=True, exist_ok=True)
            write_text(
                run / RECIPE, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
            )

    def train(self) -> bool:
        """Run to the end, or until SIGTERM or Ctrl-C; gives whether the end was reached."""
        o, r, fabric = self.recipe.optimiser, self.recipe.run, self.fabric
        batches = self.objective.batches(self.store, fabric.global_rank, fabric.world_size)
        source = iter(
            loader(batches, self.step, o.steps, r.workers, pin=fabric.device.type == "cuda")
        )
        progress = Progress(
            self.run, self.step, o.steps, r.log_every, o.batch_size, fabric.global_rank == 0
        )
        self.model.train()
        try:
            with _asked_to_stop() as asked:
                while self.step < o.steps:
                    before = time.perf_counter()
                    batch = fabric.to_device(next(source))
                    waited = time.perf_counter() - before
                    values = self._one_step(batch)
                    means = progress.step(self.step, values, waited)
                    if means and self.step > max(o.warmup_steps, min(CALM, o.steps // 10)):
                        self._watch(means, progress)
                    self.step += 1
                    stop = self._any_rank(asked.signal)
                    if stop or self.step % r.save_every == 0 or self.step == o.steps:
                        self.save()
                    if stop:
                        progress.say(
                            f"asked to stop: saved after step {self.step}; type the command again to go on"
                        )
                        return self.step == o.steps
        finally:
            progress.close()
        return True

    def _one_step(self, batch: Any) -> dict[str, float]:
        o = self.recipe.optimiser
        rate = learning_rate(self.step, o)
        values: dict[str, float] = {"lr": rate}
        good = True
        for phase in self.objective.phases(self.step):
            self._seed(phase)
            with self._only(phase):
                optimiser = self.set_up[phase]
                losses = Losses(*self.model(batch, self.step, phase))
                self.fabric.backward(losses.total)
                self.objective.before_step(self.step)
                norms = clip_gradients(self.objective.owned(phase), o.clip)
                finite = all(np.isfinite(n) for n in norms.values())
                good &= finite
                if finite:
                    set_learning_rate(optimiser.optimizer, rate)
                    optimiser.step()
                else:
                    self._skip()
            parts = {**losses.parts, **losses.monitors}
            values |= {"loss": float(losses.total.detach())}
            values |= {k: float(v) for k, v in parts.items()} | {
                f"norm_{k}": v for k, v in norms.items()
            }
        if good:
            self.objective.after_step(self.step)
        return values | {"bad_steps": float(self.bad_steps)}

    @contextmanager
    def _only(self, phase: str) -> Iterator[None]:
        """Train what a phase owns and nothing else: no gradients at its start, none left at its end."""
        owned = {p for module in self.objective.owned(phase).values() for p in module.parameters()}
        frozen = [p for p in self.objective.parameters() if p.requires_grad and p not in owned]
        self.objective.zero_grad(set_to_none=True)
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
            self.objective.zero_grad(set_to_none=True)

    def _skip(self) -> None:
        self.bad_steps += 1
        logger.warning(
            "step %d has no finite gradient and is skipped (%d so far)", self.step, self.bad_steps
        )
        if self.bad_steps > self.recipe.run.most_bad_steps:
            raise NonFiniteError(
                f"{self.bad_steps} steps without a finite gradient; the last checkpoint is from before. "
                "Lower optimiser.peak_lr, or set run.precision=32-true"
            )

    def _seed(self, phase: str) -> None:
        """Random numbers inside the networks (stochastic depth, stretched positions) derive from step and rank."""
        stream = FIRST_PHASE + self.objective.all_phases.index(phase)
        mixed = np.random.SeedSequence(
            [self.recipe.seed, self.step, self.fabric.global_rank, stream]
        )
        torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]) >> 1)

    def _watch(self, means: dict[str, float], progress: Progress) -> None:
        """Say that training has collapsed, or no longer has; once, not at every line of the log."""
        sentence = self.objective.alarm(means)
        if sentence and not self.alarmed:
            progress.say(
                f"COLLAPSE at step {self.step}: {sentence}. If it stays so, the encoder will be of no use"
            )
        if self.alarmed and not sentence:
            progress.say(f"recovered at step {self.step}")
        self.alarmed = bool(sentence)

    def _any_rank(self, asked: bool) -> bool:
        if self.fabric.world_size == 1:
            return asked
        flag = torch.tensor(float(asked), device=self.fabric.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def save(self) -> None:
        """Write the state of the run; ranks hold the same, so the first writes it."""
        if self.fabric.global_rank == 0:
            content = {
                "step": self.step,
                "bad_steps": self.bad_steps,
                "recipe": self.recipe.model_dump(mode="json"),
                "store": self.store.identity(),
                "subjects": sorted(self.seen),
                "licence": self.licence,
                "objective": self.objective.state_dict(),
                "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
            }
            checkpoints.save(self.run, self.step, content, self.recipe.run.keep)
        self.fabric.barrier()

    def _restore(self, former: dict[str, Any]) -> None:
        self.objective.load_state_dict(former["objective"])
        for name, state in former["optimisers"].items():
            self.optimisers[name].load_state_dict(state)
        self.step, self.bad_steps = former["step"], former["bad_steps"]
        self.licence, self.seen = former["licence"], set(former["subjects"])

    def _initialise(self, start: Path | None) -> None:
        given = self.recipe.encoder
        if start is not None:
            content = checkpoints.load(checkpoints.latest(start))
            earlier = parse_recipe(content["recipe"], str(start))
            if earlier.encoder.architecture != given.architecture:
                raise InputError(
                    f"{start} trained {earlier.encoder.architecture}, this recipe {given.architecture}; "
                    "allowed: the same"
                )
            self._fill(content["objective"], start)
            self.licence, self.seen = content["licence"], self.seen | set(content["subjects"])
        elif given.init != "scratch":
            encoder, report = load_encoder(given.init, given.card)
            if report.architecture != given.architecture:
                raise InputError(
                    f"encoder.init holds {report.architecture}, the recipe asks for {given.architecture}; "
                    f"type encoder.architecture={report.architecture}"
                )
            self.objective.load_encoder(encoder)
            self.licence = DERIVATIVE
            logger.warning(
                "starts from %s (%s): %s", report.card, get_card(report.card).licence, DERIVATIVE
            )

    def _fill(self, state: dict[str, Any], start: Path) -> None:
        try:
            self.objective.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(
                f"the networks of {start} and of this recipe differ ({str(error).splitlines()[1].strip()}); "
                "allowed: the same heads and prototypes, see objective.*_head"
            ) from None

    def _check_same(self, former: dict[str, Any]) -> None:
        earlier = parse_recipe(former["recipe"], str(self.run))
        if earlier.stage != self.recipe.stage:
            raise InputError(
                f"{self.run} holds a stage {earlier.stage} run, this recipe is of stage {self.recipe.stage}; "
                f"give a new folder, and start from that run: -o NEW --from {self.run}"
            )
        changed = differences(earlier, self.recipe)
        if changed:
            raise InputError(
                f"{self.run} holds a run of another recipe. Different: {some(changed)}. "
                "Give a new folder, or the former recipe"
            )
        if former["store"] != self.store.identity():
            raise InputError(
                f"the store {self.store.folder} is not the one that {self.run} was begun with (its volumes or their "
                "checksums differ), so the run cannot go on exactly. Put the former store back, or give a new folder"
            )


class _Asked:
    signal = False


@contextmanager
def _asked_to_stop() -> Iterator[_Asked]:
    """Notes SIGTERM and Ctrl-C instead of dying; a second Ctrl-C stops at once."""
    asked = _Asked()

    def note(number: int, _: Any) -> None:
        if asked.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.signal = True

    former = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
