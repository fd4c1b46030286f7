"""The training loop: any objective, any number of devices, exact to resume."""

import logging
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
from torch import Tensor

from nnunet_fm.encoders.weight_card import OWN
from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.internal.device import keep_freed_memory
from nnunet_fm.internal.errors import InputError, NonFiniteError
from nnunet_fm.internal.messages import unknown
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine import checkpoints, start
from nnunet_fm_pretrain.engine.loader import end_workers, make_loader
from nnunet_fm_pretrain.engine.log import RunLog
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Losses
from nnunet_fm_pretrain.engine.optimiser import (
    check_factors,
    clip_gradients,
    learning_rate,
    make_optimiser,
    set_learning_rate,
)
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.engine.shutdown import GracefulShutdown

logger = logging.getLogger(__name__)

ALARM_AFTER = 1000  # steps, or a tenth of the run: uniform targets are normal before
FIRST_PHASE = 4  # number of the first phase's random stream, as in runs of version 0.1
# torch.compile specialises on each block's stochastic depth and each input size; its default is 8
RECOMPILES = 256


class Engine:
    """One run in one folder.

    Args:
        method: what is trained.
        recipe: its settings, of the class `method.recipe`.
        store: the data, of the kind that the method opens.
        run: folder of the run; a run that it holds is resumed.
        init_from: run folder or checkpoint whose weights a new run starts from.
        fabric: devices; launched.

    Raises:
        ValueError: the folder holds another run, or the store has changed.
    """

    def __init__(
        self,
        method: Method,
        recipe: Recipe,
        store: Store,
        run: Path,
        init_from: Path | None,
        fabric: Fabric,
    ) -> None:
        self.method, self.recipe, self.store = method, recipe, store
        self.run, self.fabric = run, fabric
        self.step = 0
        self.stopped_by = 0
        self.skipped_steps = 0
        self.warned_of_collapse = False
        self.licence = OWN
        self.subjects_seen = set(store.subjects())
        saved = checkpoints.checkpoints(run)
        former = checkpoints.load(saved[-1]) if saved else None
        if former:
            start.check_resumable(former, method, recipe, store, run)
        else:
            start.check_start(method, recipe, init_from)
        self.objective = method.build(recipe)
        self._check_phases()
        if former is None:
            self._initialise(init_from)
        self._set_up_devices()
        if former:
            self._restore(former)  # now that everything is where it will stay
        if fabric.global_rank == 0 and former is None:
            run.mkdir(parents=True, exist_ok=True)
            content = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
            write_text(run / start.RECIPE, content)

    def _check_phases(self) -> None:
        phases = self.objective.all_phases
        trained = {phase: self.objective.trainable_modules(phase) for phase in phases}
        everything = {name: module for part in trained.values() for name, module in part.items()}
        given = self.recipe.optimiser.model_dump(exclude_unset=True)  # not what is only a default
        check_factors(everything, given, "optimiser")
        for phase, changes in self.recipe.optimisers.items():
            if phase not in phases:
                raise InputError(unknown("key", f"optimisers.{phase}", phases))
            changed = changes.model_dump(exclude_unset=True)
            check_factors(trained[phase], changed, f"optimisers.{phase}")

    def _initialise(self, init_from: Path | None) -> None:
        if init_from is not None:
            self.licence, seen = start.start_from_run(
                self.objective, self.method, self.recipe, init_from
            )
            self.subjects_seen |= seen
        elif self.recipe.encoder.init != "scratch":
            self.licence = start.start_from_file(self.objective, self.recipe.encoder)

    def _set_up_devices(self) -> None:
        self.optimisers = {
            phase: make_optimiser(
                self.objective.trainable_modules(phase), self.recipe.optimiser_of(phase)
            )
            for phase in self.objective.all_phases
        }
        if self.recipe.run.compile and self.fabric.device.type == "cuda":
            torch._dynamo.config.recompile_limit = RECOMPILES
            for block in self.objective.blocks_to_compile():
                block.compile()
        if self.fabric.device.type == "cpu":
            keep_freed_memory()
        self.model, *set_up = self.fabric.setup(self.objective, *self.optimisers.values())
        self.fabric_optimisers = dict(zip(self.optimisers, set_up, strict=True))

    def train(self) -> bool:
        """Run to the end, or until SIGTERM or Ctrl-C; return whether the end was reached.

        `stopped_by` is then the number of the signal.
        """
        steps, run, fabric = self.recipe.optimiser.steps, self.recipe.run, self.fabric
        if self.step == steps:  # finished before; nothing is written
            return True
        batches = self.objective.batches(self.store, fabric.global_rank, fabric.world_size)
        pin = fabric.device.type == "cuda"
        source = iter(make_loader(batches, self.step, steps, run.workers, pin))
        batch_size = self.recipe.optimiser.batch_size
        first_rank = fabric.global_rank == 0
        log = RunLog(self.run, self.step, steps, run.log_every, batch_size, first_rank)
        self.model.train()
        try:
            with GracefulShutdown() as shutdown:
                while self.step < steps:
                    self._log_step(source, log)
                    self.step += 1
                    self.stopped_by = self._any_rank(shutdown.requested)
                    if self.stopped_by or self.step % run.save_every == 0 or self.step == steps:
                        self.save()
                    if self.stopped_by and self.step < steps:
                        log.print(
                            f"Stopped: checkpoint saved at step {self.step} of {steps}. "
                            "Rerun the command to resume."
                        )
                        break
        finally:
            end_workers(source)
            log.close()
        return self.step == steps

    def _log_step(self, source: Iterator[Any], log: RunLog) -> None:
        started = time.perf_counter()
        batch = self.fabric.to_device(next(source))
        waited = time.perf_counter() - started
        means = log.step(self.step, self._one_step(batch), waited)
        optimiser = self.recipe.optimiser
        calm = max(optimiser.warmup_steps, min(ALARM_AFTER, optimiser.steps // 10))
        if means and self.step > calm:
            self._watch(means, log)

    def _one_step(self, batch: Any) -> dict[str, float]:
        """Train every phase of a step on a batch; return what is logged."""
        phases = self.objective.phases(self.step)
        values: dict[str, float] = {"loss": 0.0}
        all_finite = True
        for phase in phases:
            with self._only(phase):
                logged, finite = self._one_phase(batch, phase)
            all_finite &= finite
            values["loss"] += logged.pop("loss")
            prefix = f"{phase}_" if len(self.objective.all_phases) > 1 else ""
            values |= {f"{prefix}{name}": value for name, value in logged.items()}
        if all_finite:
            self.objective.after_step(self.step)
        return values | {"skipped_steps": float(self.skipped_steps)}

    def _one_phase(self, batch: Any, phase: str) -> tuple[dict[str, float], bool]:
        """Train one phase; return what is logged, and whether its gradients were finite."""
        settings = self.recipe.optimiser_of(phase)
        rate = learning_rate(self.step, settings)
        optimiser = self.fabric_optimisers[phase]
        self._seed(phase)
        values = self._accumulate(batch, phase)
        self.objective.before_step(self.step, phase)
        norms = clip_gradients(self.objective.trainable_modules(phase), settings.clip)
        finite = all(np.isfinite(norm) for norm in norms.values())
        if finite:
            set_learning_rate(optimiser.optimizer, rate)
            optimiser.step()
        else:
            self._skip()
        logged = {"lr": rate, **values}
        logged |= {f"norm_{name}": norm for name, norm in norms.items()}
        return logged, finite

    def _accumulate(self, batch: Any, phase: str) -> dict[str, float]:
        """Average the gradients of a batch's micro-batches; return losses and monitors."""
        micro_batches = self.objective.micro_batches(batch)
        count = len(micro_batches)
        totals: list[Tensor] = []
        parts: list[dict[str, Tensor]] = []
        for number, micro_batch in enumerate(micro_batches, 1):
            waits = self.fabric.world_size > 1 and number < count
            with self.fabric.no_backward_sync(self.model, enabled=waits):
                losses = Losses(*self.model(micro_batch, self.step, phase))
                self.fabric.backward(losses.total / count)
            totals.append(losses.total.detach())
            parts.append(losses.parts)
        means = {name: float(sum(part[name] for part in parts)) / count for name in parts[0]}
        monitors = {name: float(value) for name, value in losses.monitors.items()}
        return {"loss": float(sum(totals)) / count, **means, **monitors}

    @contextmanager
    def _only(self, phase: str) -> Iterator[None]:
        """Train what a phase owns and nothing else: no gradients before it, none left after it."""
        modules = self.objective.trainable_modules(phase).values()
        owned = {parameter for module in modules for parameter in module.parameters()}
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
        self.skipped_steps += 1
        logger.warning(
            "step %d has no finite gradient and is skipped (%d so far)",
            self.step,
            self.skipped_steps,
        )
        if self.skipped_steps > self.recipe.run.max_skipped_steps:
            raise NonFiniteError(
                f"{self.skipped_steps} steps without a finite gradient; the last checkpoint is "
                "from before. Lower optimiser.peak_lr, or set run.precision=32-true"
            )

    def _seed(self, phase: str) -> None:
        """Seed the random numbers inside the networks, e.g. stochastic depth, by step and rank."""
        stream = FIRST_PHASE + self.objective.all_phases.index(phase)
        sequence = np.random.SeedSequence(
            [self.recipe.seed, self.step, self.fabric.global_rank, stream]
        )
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]) >> 1)

    def _watch(self, means: dict[str, float], log: RunLog) -> None:
        """Report a collapse and a recovery from it, once each."""
        warning = self.objective.collapse_warning(means)
        if warning and not self.warned_of_collapse:
            log.print(
                f"COLLAPSE at step {self.step}: {warning}. "
                "If it stays so, the encoder will be of no use"
            )
        if self.warned_of_collapse and not warning:
            log.print(f"recovered at step {self.step}")
        self.warned_of_collapse = bool(warning)

    def _any_rank(self, requested: int) -> int:
        """Return the number of a signal that has reached any rank, or 0."""
        if self.fabric.world_size == 1:
            return requested
        number = torch.tensor(requested, device=self.fabric.device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)

    def save(self) -> None:
        """Write the state of the run. All ranks hold the same, so the first one writes."""
        if self.fabric.global_rank == 0:
            content = {
                "step": self.step,
                "skipped_steps": self.skipped_steps,
                "recipe": self.recipe.model_dump(mode="json"),
                "store": self.store.identity(),
                "subjects": sorted(self.subjects_seen),
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
        self.step = former["step"]
        self.skipped_steps = former["skipped_steps"]
        self.licence = former["licence"]
        self.subjects_seen = set(former["subjects"])
