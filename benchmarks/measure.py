"""Helpers shared by the benchmarks: worker processes that take turns, and paired ratios."""

import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

Step = Callable[[], Any]


def seconds_per_sample(
    batches: Iterator[Any], ahead: int, rounds: int, per_round: int, batch_size: int
) -> list[float]:
    """Seconds per sample of each round of a few batches, after those that a worker made ahead."""
    for _ in range(ahead):
        next(batches)
    measured = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(per_round):
            next(batches)
        measured.append((time.perf_counter() - started) / (per_round * batch_size))
    return measured


def one_thread(_: int) -> None:
    """Start a loader's worker with one thread of torch."""
    torch.set_num_threads(1)


def take_turns(makers: dict[str, Callable[[], Step]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, measured in turn: A B A B ...

    Each maker builds its step in a process of its own, so that allocator settings of one do not
    reach the other; only one runs at a time. The first round warms up and is not counted.
    """
    context = get_context("spawn")
    ends: dict[str, Connection] = {}
    processes = []
    for name, maker in makers.items():
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, maker, torch.get_num_threads()), daemon=True
        )
        process.start()
        processes.append(process)
        ends[name] = ours
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for number in range(rounds + 1):
        for name, end in ends.items():
            end.send("step")
            elapsed = end.recv()
            if number:
                seconds[name].append(elapsed)
    for end in ends.values():
        end.send("stop")
    for process in processes:
        process.join()
    return seconds


def _serve(end: Connection, maker: Callable[[], Step], threads: int) -> None:
    torch.set_num_threads(threads)
    step = maker()
    while end.recv() == "step":
        started = time.perf_counter()
        step()
        end.send(time.perf_counter() - started)


def paired_ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return round(statistics.median(s / f for s, f in zip(slow, fast, strict=True)), 2)
