"""Trainings that are resumed with other plans."""

import json
from pathlib import Path

import pytest

from helpers.nnunet import (
    PLANS,
    TRAINER,
    Run,
    train_words,
)


@pytest.mark.parametrize(
    ("words", "different"),
    [
        (["--encoder", "dinov3_test16"], "encoder"),
        (["--encoder", "FILE", "--taps", "0,1,2"], "taps"),
        (["--encoder", "FILE", "--train-ratio", 0.5], "train_subset"),
    ],
)
def test_plans_rewritten_for_another_run_are_noticed(
    words: list, different: str, trained: Path, planned: Path, run: Run, encoder_file: Path
) -> None:
    plans_file = planned / f"{PLANS}.json"
    original = plans_file.read_text()
    words = [encoder_file if w == "FILE" else w for w in words]
    run(
        "nnunet-fm",
        "plan",
        "-d",
        7,
        *words,
        "--patch",
        48,
        "--batch-size",
        2,
        "-o",
        f"FM_{different}",
    )
    swapped = json.loads((planned / f"FM_{different}.json").read_text()) | {"plans_name": PLANS}
    plans_file.write_text(json.dumps(swapped))
    try:
        said = run(*train_words(TRAINER), "--c", expect=1).stdout
        assert "was trained with other plans" in said
        assert f"different: {different}" in said
    finally:
        plans_file.write_text(original)
