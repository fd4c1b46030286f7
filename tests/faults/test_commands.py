"""Every command that writes: killed, on a full or read-only disk, short of files, twice at once.

After each fault: what was finished is intact, no half file has a final name, the same command
finishes with the bytes of an undisturbed run, and no process is left. `make faults` kills at
every event; without it, the events are a sample.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.fault_inputs import make_inputs
from helpers.faults import (
    Bench,
    Row,
    check_fault,
    check_rests,
    check_small_disk,
    check_twice,
    reference,
)

ALL = os.environ.get("FAULTS") == "all"
PRINTED = 8192  # bytes that a command prints at most, into a file as well
MOST = 40  # kills of one command in the long list
MOST_SLOW = 10  # of one that takes several seconds
TABLE = "t1.csv"
CACHED = f"--table {TABLE} --cache cache/features"
TASK = "classification target=label ratios=[1.0] seeds=1 models=[linear,trivial]"
COMPARED = "heads/classification_label"
MODEL = "run/frozen_2d"
NNUNET = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
TRAINING = ("*.log", "*/outcomes/*.json", "*/running/*")  # differ in times

ROWS = [
    Row(
        "convert brats brats -d 7 -n Small --scheme gli2023 --copy -np 1",
        ("brats",),
        refuses_finished=True,
    ),
    Row(
        "plan -d 31 --encoder dinov3_test16 --patch 32 -o FM_x",
        ("nnUNet_raw/Dataset031_Made", "nnUNet_preprocessed/Dataset031_Made"),
    ),
    Row(
        "evaluate predictions truth --scheme gli2023 -np 1 -o scores",
        ("predictions", "truth"),
    ),
    Row(
        "features extract few.csv --cache c --encoder dinov3_test16 --shape 8 32 32 -np 0 "
        "--batch-size 8",  # of one volume each, as the rounding depends on the batch
        ("few.csv", "cache/volumes"),
        rests=True,
    ),
    Row(
        f"features check-leakage {TABLE} --cache cache/features --pretrain store/manifest.jsonl "
        "--allow-no-match -o leakage.csv",
        (TABLE, "cache", "store"),
        code=3,  # there are any
    ),
    Row(f"heads run {TASK} {CACHED} --encoder f33aea49148d -o heads", (TABLE, "cache"), rests=True),
    Row(
        f"heads compare {COMPARED}/dinov3_test16_random3-4a0f01e0/ffb1e9eee5d3 "
        f"{COMPARED}/encoder-f33aea49/d679804172af -o comparison",
        (COMPARED,),
        slow=True,
    ),
    Row(f"heads robustness {TASK} {CACHED} --encoder f33aea49148d -o robustness", (TABLE, "cache")),
    Row(
        f"analyse cka {TABLE} --cache cache/features -o cka "
        "--first f33aea49148d --second dinov3_test16_random3",
        (TABLE, "cache"),
    ),
    Row(
        "sweep small.yaml seeds=[4] -o sweep/sweep",
        ("small.yaml", *NNUNET),
        varies=TRAINING,
        fake_training=True,
        rests=True,
    ),
    Row("report sweep/sweep -o report -np 1", ("sweep/sweep", *NNUNET), slow=True),
    Row(f"export {MODEL} exported", (MODEL,), refuses_finished=True),
    Row(
        f"predict -m {MODEL} -i run/case -o predicted -f 0 -device cpu -npp 1 -nps 1 "
        "--disable_progress_bar",
        (MODEL, "run/case"),
        theirs=("predicted/*",),
        slow=True,
    ),
    Row("pretrain prepare mri -o s --size 32 --slices 4 -np 1", ("mri",), rests=True),
    Row(
        "pretrain run mae2d.yaml --store store -o r --accelerator cpu",
        ("mae2d.yaml", "store"),
        varies=("log.csv", "events.*"),
        rests=True,
    ),
    Row("pretrain export pretrain_run/finished -o encoder.pth", ("pretrain_run",)),
    Row(
        "pretrain probe pretrain_run/encoder.safetensors --table probed.csv --targets age "
        "--seeds 1 --size 32 --slices 4 -o probes.csv",
        ("probed.csv", "cache/volumes", "pretrain_run"),
    ),
    Row("pretrain synthesise --subjects 1 -np 1 -o brains", (), slow=True),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    base = tmp_path_factory.mktemp("faults")
    made = Bench(base, make_inputs(base / "inputs", base / "work"))
    yield made
    made.close()
    counts = Path(os.environ["FAULT_COUNTS"]) if "FAULT_COUNTS" in os.environ else None
    if counts:
        counts.write_text("".join(f"{n:5} {what}\n" for what, n in sorted(made.counts.items())))


def sample(events: int, row: Row) -> list[int]:
    """Events to kill at: all, or some that differ from command to command."""
    if ALL:
        most = MOST_SLOW if row.slow else MOST
        return list(range(0, events, max(1, -(-events // most))))
    middle = sum(row.text.encode()) % events
    return [middle] if row.slow else sorted({middle, events - 1})


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_faults(bench: Bench, row: Row) -> None:
    expected = reference(bench, row)
    kills = sample(expected.events, row)
    for at in kills:
        check_fault(bench, row, expected, "kill", at)
    if expected.largest // 2 > PRINTED:
        check_fault(bench, row, expected, "size", expected.largest // 2)
    if row.slow and not ALL:
        return
    if not row.refuses_finished:
        for at in kills if ALL else kills[:1]:
            check_fault(bench, row, expected, "kill", at, finished=True)
            check_fault(bench, row, expected, "full", at, finished=True)
    for at in kills if ALL else kills[:1]:
        check_fault(bench, row, expected, "full", at)
    check_fault(bench, row, expected, "read-only", 0)
    check_fault(bench, row, expected, "handles", 0)
    if not row.refuses_finished:
        check_small_disk(bench, row, expected)
    if row.rests:
        check_rests(bench, row, expected)
    check_twice(bench, row, expected)
