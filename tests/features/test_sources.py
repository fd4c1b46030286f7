"""One encoder for each modality of a visit, joined by `fusion: concat`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tables import write_lines
from nnunet_fm.cli.main import main
from nnunet_fm.features import FeatureCache, FeatureRecipe, Table, read_table
from nnunet_fm.heads.task import Task
from nnunet_fm.heads.task_data import TaskInputs

SEQUENCES = ("T1", "FLAIR")
FIRST = FeatureRecipe("first", "ab" * 32, "dinov3_test16", {}, (1, 3), "float32", {"strip": "none"})
SECOND = replace(FIRST, name="second", encoder="cd" * 32, layers=(5,))
WIDTHS = {"first": 3, "second": 2}


def vector(recipe: FeatureRecipe, subject: str, sequence: str) -> np.ndarray:
    """Return the last layer's vector of a volume."""
    start = 100 * int(subject[1:]) + 10 * SEQUENCES.index(sequence)
    return np.arange(start, start + WIDTHS[recipe.name], dtype=np.float32)


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Table, FeatureCache]:
    """Six subjects with two sequences, and the features of both by two encoders."""
    lines = []
    for number in range(6):
        for sequence in SEQUENCES:
            (tmp_path / f"{number}{sequence}.nii").write_text(f"{number} {sequence}")
        lines.append(f"s{number},{30 + number},{number}T1.nii,{number}FLAIR.nii")
    table = read_table(write_lines(tmp_path, lines, "subject_id,age,T1,FLAIR"))
    cache = FeatureCache(tmp_path / "cache")
    for recipe in (FIRST, SECOND):
        for row in table.rows:
            for name in SEQUENCES:
                last = vector(recipe, row.subject, name)
                pooled = np.stack([last + place for place in range(1 - len(recipe.layers), 1)])
                cache.write(recipe, cache.key_of(recipe, row, name), {"pooled": pooled})
    return table, cache


def test_each_modality_has_the_vector_of_its_encoder(filled: tuple[Table, FeatureCache]) -> None:
    table, cache = filled
    encoders = {"FLAIR": "second", "T1": "first"}
    names, x = cache.matrix(table, encoder=encoders, fusion="concat")
    assert names == [row.name for row in table.rows]
    assert x.shape == (6, 5)
    for row, found in zip(table.rows, x, strict=True):
        own = [vector(FIRST, row.subject, "T1"), vector(SECOND, row.subject, "FLAIR")]
        assert np.array_equal(found, np.concatenate(own))
    _, turned = cache.matrix(table, encoder=encoders, fusion="concat", modalities=["FLAIR", "T1"])
    assert np.array_equal(turned[:, :2], x[:, 3:])
    data = _inputs(filled, fusion="concat").collect(encoders)
    assert np.array_equal(data.x, x)
    assert [part.split("-")[0] for part in data.encoder.split("+")] == ["first", "second"]
    assert list(data.encoders) == ["T1", "FLAIR"]
    assert data.encoders["FLAIR"].startswith("second-")


@pytest.mark.parametrize(
    ("encoders", "more", "message"),
    [
        ({"T1": "first", "FLAIR": "second"}, {}, "fusion=mean; allowed: fusion=concat"),
        ({"T1": "first"}, {"fusion": "concat"}, r"encoders for T1, .* are T1, FLAIR; allowed: one"),
        ({"T1": "first", "FLAIR": "x"}, {"fusion": "concat"}, "holds no features of encoder 'x'"),
        (
            {"T1": "first", "FLAIR": "second"},
            {"fusion": "concat", "layer": 3},
            "the cache has no layer 3 of second; allowed: 5",
        ),
    ],
)
def test_encoders_that_do_not_fit(
    filled: tuple[Table, FeatureCache], encoders: Any, more: dict[str, Any], message: str
) -> None:
    table, cache = filled
    with pytest.raises(ValueError, match=message):
        cache.matrix(table, encoder=encoders, **more)


def test_what_to_type_for_missing_features(filled: tuple[Table, FeatureCache]) -> None:
    table, cache = filled
    cache.path(SECOND, cache.key_of(SECOND, table.rows[2], "FLAIR")).unlink()
    with pytest.raises(FileNotFoundError, match=r"s2 FLAIR; .*--encoder second .*--modalities FL"):
        cache.matrix(table, encoder={"T1": "first", "FLAIR": "second"}, fusion="concat")


def test_the_command(
    filled: tuple[Table, FeatureCache], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, cache = filled
    words = ["heads", "run", "brain_age", "fusion=concat", "models=[linear]", "seeds=1"]
    words += ["folds=2", "ratios=[1.0]", "--table", str(table.file), "--cache", str(cache.folder)]
    words += ["-o", str(tmp_path / "heads")]
    assert main([*words, "--encoder", "T1=first", "--encoder", "FLAIR=second"]) == 0
    (about,) = (tmp_path / "heads").glob("*/*/*/run.json")
    found = json.loads(about.read_text())["encoders"]
    assert [label.split("-")[0] for label in found.values()] == ["first", "second"]
    assert list(found) == ["T1", "FLAIR"]
    capsys.readouterr()
    assert main([*words, "--encoder", "first", "--encoder", "FLAIR=second"]) == 2
    assert "allowed: one NAME, or COLUMN=NAME once for each of T1, FLAIR" in capsys.readouterr().err
    assert main([*words, "--encoder", "T1=", "--encoder", "FLAIR=second"]) == 2
    assert "COLUMN=NAME once for each" in capsys.readouterr().err
    assert main([*words, "--encoder", "T1=first"]) == 2
    assert "allowed: one encoder for each of them" in capsys.readouterr().err


def _inputs(filled: tuple[Table, FeatureCache], **task: Any) -> TaskInputs:
    settings = Task.model_validate({"kind": "regression", "target": "age", **task})
    return TaskInputs("age", settings, *filled)
