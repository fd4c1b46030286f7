"""Text and images that would take all memory or time, or that are not what their name says."""

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import pytest

from helpers.brats import write_small_brats
from helpers.label_files import write_labels
from helpers.tables import write_lines
from nnunet_fm.cli.main import main
from nnunet_fm.data.bids import read_description
from nnunet_fm.data.brats import convert_brats
from nnunet_fm.data.grids import read_values
from nnunet_fm.data.image_checks import find_cases
from nnunet_fm.data.label_images import read_labels
from nnunet_fm.data.subject_table import read_table
from nnunet_fm.data.volumes import BadVolumeError, read_mask, read_volume
from nnunet_fm.evaluation.labels import LabelScheme
from nnunet_fm.experiments.config import read_sweep
from nnunet_fm.experiments.runs import read_runs
from nnunet_fm.features.cache import FeatureCache
from nnunet_fm.heads.saved_runs import read_run
from nnunet_fm.heads.task import read_task
from nnunet_fm.internal.arguments import parse_key_values
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import read_list, read_object
from nnunet_fm.internal.yaml_text import parse_yaml
from nnunet_fm.nnunet.dataset_files import read_dataset_json, read_folds, read_plans
from nnunet_fm.nnunet.run_record import read_record
from nnunet_fm_pretrain.data.records import read_manifests

JSON = {
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "a number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "cut": b'{"a": [1, 2',
    "empty": b"",
    "a number": b"1",
    "null": b"null",
    "a text": b'"text"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "NUL": b'{"a": "\0"}',
    "binary": bytes(range(256)),
}
READERS: dict[str, Callable[[Path], Any]] = {
    "object.json": read_object,
    "list.json": read_list,
    "dataset.json": read_dataset_json,
    "labels.json": LabelScheme.read,
    "plans.json": read_plans,
    "splits_final.json": read_folds,
    "runs.json": lambda file: read_runs(file.parent),
    "nnunet_fm.json": lambda file: read_record(file.parent),
    "a/recipe.json": lambda file: FeatureCache(file.parents[1]).recipes(),
    "dataset_description.json": lambda file: read_description(file.parent),
    "manifest.jsonl": lambda file: read_manifests(file.parent),
}


@pytest.mark.parametrize("content", JSON)
@pytest.mark.parametrize("name", READERS)
def test_damaged_json_is_one_sentence_with_the_file(
    name: str, content: str, tmp_path: Path
) -> None:
    if (name, content) == ("manifest.jsonl", "empty"):
        return  # a store without volumes
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(JSON[content])
    with pytest.raises(InputError, match=file.name):
        READERS[name](file)


def aliases(levels: int) -> str:
    """Return YAML in which each level stands for nine of the level before."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


YAML = {
    "aliases": aliases(20),
    "a list in itself": "a: &a [*a]",
    "an object in itself": "&a {x: *a}",
    "a merge with itself": "a: &a\n  <<: *a",
    "deep list": "[" * 20_000,
    "a day that does not exist": "a: 2024-99-99",
    "a number of 5000 digits": "a: " + "9" * 5000,
    "an object of Python": "a: !!python/object/apply:os.mkdir [executed]",
    "NUL": "a: \0",
    "two documents": "--- 1\n--- 2",
    "binary that is none": "a: !!binary aaa",
    "an object as a key": "? {a: 1}\n: 2",
    "unclosed": "a: [1, 2",
}


@pytest.mark.parametrize("content", YAML)
@pytest.mark.parametrize("read", [read_sweep, read_task])
def test_hostile_yaml_is_one_sentence_with_the_file(
    read: Callable[[Path], Any], content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "settings.yaml"
    file.write_text(YAML[content])
    with pytest.raises(InputError, match=r"settings\.yaml"):
        read(file)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", YAML)
def test_hostile_yaml_of_an_option_is_one_sentence(content: str) -> None:
    with pytest.raises(InputError, match="target="):
        read_task("brain_age", [f"target={YAML[content]}"])


def test_aliases_of_a_usual_size_are_read() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: [*a, *a]", "")["b"] == [[1, 2], [1, 2]]


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{"])
def test_an_option_that_is_no_json_is_text(text: str) -> None:
    assert parse_key_values([f"a={text}"]) == {"a": text}


@pytest.mark.parametrize("quote", ["", '"'])
def test_an_endless_cell_is_one_sentence(quote: str, tmp_path: Path) -> None:
    table = write_lines(tmp_path, [f"{quote}{'x' * 200_000}{quote},a.nii.gz,train"])
    with pytest.raises(InputError, match=r"t\.csv, line 2: a cell of more than 131072 characters"):
        read_table(table)
    table = write_lines(tmp_path, ["a"], header="x" * 200_000)
    with pytest.raises(InputError, match=r"t\.csv"):
        read_table(table)


def write_finished_run(folder: Path, results: str, about: str) -> None:
    (folder / "results.csv").write_text(results)
    (folder / "run.json").write_text(about)


ABOUT = json.dumps(dict.fromkeys(("task", "encoder", "kind", "classes", "settings"), ""))


@pytest.mark.parametrize(
    ("results", "about"),
    [
        ("x" * 200_000, ABOUT),
        ("task,ratio\na,b", ABOUT),
        ("task,ratio\na", ABOUT),
        ("task\na", ABOUT),
        ("", ABOUT),
        ("task\na", "{}"),
        ("task\na", "[]"),
    ],
)
def test_edited_results_of_heads_are_one_sentence(results: str, about: str, tmp_path: Path) -> None:
    write_finished_run(tmp_path, results, about)
    with pytest.raises(InputError, match=str(tmp_path)):
        read_run(tmp_path)


HUGE = (30_000, 30_000, 30_000)


def write_huge(path: Path, kind: int = 4) -> Path:
    """Write a header that promises 50 TB, and a few bytes behind it."""
    header = nib.Nifti1Header()
    header["datatype"], header["bitpix"] = kind, 16
    header.set_data_shape(HUGE)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    header["srow_x"][0] = header["srow_y"][1] = header["srow_z"][2] = 1
    header["sform_code"] = 1
    content = header.binaryblock + bytes(1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["huge.nii", "huge.nii.gz"])
def test_an_image_larger_than_its_file_is_refused(name: str, tmp_path: Path) -> None:
    file = write_huge(tmp_path / name)
    says = rf"{name}: its header says 30000 x 30000 x 30000 voxels"
    like = nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4))
    for read in (read_values, read_volume, lambda path: read_mask(path, like)):
        with pytest.raises(InputError, match=says):
            read(file)


def test_an_image_larger_than_the_memory_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((64, 64, 64), np.int16), np.eye(4))
    nib.save(image, tmp_path / "bomb.nii.gz")
    assert (tmp_path / "bomb.nii.gz").stat().st_size < 10_000
    free = SimpleNamespace(available=1 << 18)
    with mock.patch("psutil.virtual_memory", return_value=free):
        with pytest.raises(InputError, match="GiB of memory"):
            read_values(tmp_path / "bomb.nii.gz")
        with pytest.raises(BadVolumeError, match="GiB of memory"):
            read_volume(tmp_path / "bomb.nii.gz")


def test_a_bomb_in_the_compression_is_cut(tmp_path: Path) -> None:
    """Many megabytes behind a small image are not unpacked."""
    voxels = np.arange(20**3, dtype=np.int16).reshape(20, 20, 20)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes() + bytes(1 << 24)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    (tmp_path / "a.nii.gz").write_bytes(packer.compress(content) + packer.flush())
    assert (read_values(tmp_path / "a.nii.gz") == voxels.T).all()


@pytest.mark.parametrize("cut", [4, 30, 200])
def test_a_truncated_label_file_is_not_read_as_labels(cut: int, tmp_path: Path) -> None:
    file = tmp_path / "a.nii.gz"
    write_labels(file, np.random.default_rng(0).integers(0, 3, (8, 22, 22)))
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(InputError, match=r"a\.nii\.gz is truncated or damaged"):
        read_labels(file)


def test_one_hostile_case_does_not_end_a_conversion(tmp_path: Path) -> None:
    write_small_brats(tmp_path / "in", 2, 2)
    bad = "BraTS-T-00001"
    write_huge(tmp_path / "in" / bad / f"{bad}-t1n.nii.gz")
    (tmp_path / "raw").mkdir()
    result = convert_brats(tmp_path / "in", tmp_path / "raw", 1, "A", scheme="gli2023")
    assert result.training == ["BraTS-T-00000"]
    assert "its header says" in result.skipped[bad]


def test_one_hostile_case_does_not_end_a_prediction(tmp_path: Path) -> None:
    write_labels(tmp_path / "good_0000.nii.gz", np.ones((4, 4, 4)))
    write_huge(tmp_path / "huge_0000.nii.gz")
    cases, problems = find_cases(tmp_path, 1, ".nii.gz")
    assert list(cases) == ["good"]
    assert "its header says" in problems["huge"]


def test_one_hostile_case_does_not_end_an_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.zeros((6, 8, 8))
    labels[2:4, 2:6, 2:6] = 1
    for case in ("good", "huge", "cut"):
        write_labels(tmp_path / "truth" / f"{case}.nii.gz", labels)
        write_labels(tmp_path / "predictions" / f"{case}.nii.gz", labels)
    write_huge(tmp_path / "predictions" / "huge.nii.gz")
    cut = tmp_path / "predictions" / "cut.nii.gz"
    cut.write_bytes(cut.read_bytes()[:60])
    description = tmp_path / "dataset.json"
    description.write_text(json.dumps({"labels": {"background": 0, "tumour": 1}}))
    words = ["evaluate", str(tmp_path / "predictions"), str(tmp_path / "truth")]
    assert main([*words, "--dataset-json", str(description), "-np", "1"]) == 1
    error = capsys.readouterr().err
    assert "the means lack 2 of 3 cases:" in error
    assert "not scored: huge:" in error
    assert "not scored: cut:" in error
    scores = (tmp_path / "predictions" / "scores.csv").read_text()
    assert "good" in scores
    assert "huge" not in scores
    page = (tmp_path / "predictions" / "scores.md").read_text()
    assert "the means lack 2 of 3 cases:" in page
