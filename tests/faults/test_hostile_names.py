"""Names in files of others lead out of no folder, and run in no program that shows them."""

import csv
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from nnunet_fm.evaluation.labels import LabelScheme
from nnunet_fm.experiments.report.page import Section, render_page
from nnunet_fm.experiments.report.table_formats import to_latex, to_markdown
from nnunet_fm.experiments.report.tables import Cell, Table
from nnunet_fm.experiments.runs import RUNS, read_runs
from nnunet_fm.features.cache import RECIPE_FILE, FeatureCache
from nnunet_fm.heads.saved_runs import run_folder
from nnunet_fm.heads.task_data import TaskData
from nnunet_fm.internal.atomic_files import write_csv
from nnunet_fm.internal.csv_text import read_rows
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.path_parts import LONGEST, path_below, path_part
from nnunet_fm.internal.plotting import new_figure, svg
from nnunet_fm.nnunet.dataset_files import read_folds, read_plans
from nnunet_fm_pretrain.data.array_files import volume_path
from nnunet_fm_pretrain.data.records import SliceRecord, from_json, read_manifests, to_json
from nnunet_fm_pretrain.data.source import Source

UPWARDS = ["../../up", "/etc/passwd", "..", "a/../../up", "a\\..\\up", "a\0b", "a\nb", ""]
FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''"]
HTML = "</script><!--<script><img src=x onerror=alert(1)>\u2028&'\""


@pytest.mark.parametrize("name", UPWARDS)
def test_a_name_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    part = path_part(name)
    assert (tmp_path / part).resolve().parent == tmp_path
    assert path_below(tmp_path, name).resolve().is_relative_to(tmp_path)
    (tmp_path / part).mkdir()


def test_names_that_are_harmless_stay_as_they_are() -> None:
    for name in ("dinov2_vitb14.lvd142m", "my encoder (2).pth-0a1b", "Gehirnäußeres", "a+b=c"):
        assert path_part(name) == name
    cut = {path_part("脑" * length) for length in (60, 61)}
    assert len(cut) == 2
    assert max(len(name.encode()) for name in cut) <= LONGEST


@pytest.mark.parametrize("name", UPWARDS[:4])
def test_a_recipe_of_a_cache_does_not_choose_the_folder_of_heads(name: str, tmp_path: Path) -> None:
    recipe = {
        "name": name,
        "encoder": "0" * 64,
        "architecture": "dinov3_test16",
        "options": {},
        "layers": [1],
        "precision": "float32",
        "preprocessing": {},
        "perturbation": None,
        "format": 1,
    }
    (tmp_path / "cache" / "a-b").mkdir(parents=True)
    (tmp_path / "cache" / "a-b" / RECIPE_FILE).write_text(json.dumps(recipe))
    found = FeatureCache(tmp_path / "cache").recipes()[0]

    data = mock.create_autospec(TaskData, instance=True)
    data.name = "../brain_age"
    data.encoder = f"{found.name}-0123"
    data.identity.return_value = data.former_identity.return_value = "0" * 64
    assert run_folder(tmp_path / "out", data).resolve().is_relative_to(tmp_path / "out")


@pytest.mark.parametrize("name", UPWARDS)
def test_names_in_json_files_are_refused(name: str, tmp_path: Path) -> None:
    folds = tmp_path / "splits_final.json"
    folds.write_text(json.dumps([{"train": ["a"], "val": [name]}]))
    with pytest.raises(InputError, match=r"a case in .*splits_final\.json"):
        read_folds(folds)
    plans = tmp_path / "plans.json"
    plans.write_text(json.dumps({"plans_name": name, "configurations": {}}))
    with pytest.raises(InputError, match=r"plans\.json: plans_name"):
        read_plans(plans)
    run = {"dataset": "Dataset001_A", "encoder": name, "ratio": 1.0, "seed": 1, "fold": 0}
    run |= {"trainer": "T", "plans": "P", "configuration": "2d", "folder": "x"}
    (tmp_path / RUNS).write_text(json.dumps([run]))
    with pytest.raises(InputError, match=r"encoder in .*runs\.json"):
        read_runs(tmp_path)
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"volume": name}))
    with pytest.raises(InputError, match=r"manifest\.jsonl, line 1"):
        read_manifests(tmp_path)


@pytest.mark.parametrize("name", [*UPWARDS[:4], "脑" * 60])
def test_a_volume_is_stored_below_its_store(name: str, tmp_path: Path) -> None:
    source = Source(name, name, "T1", tmp_path / "a.nii", session=name)
    file = volume_path(tmp_path / "store", source.name)
    assert file.resolve().is_relative_to(tmp_path / "store" / "volumes")
    file.parent.mkdir(parents=True)
    file.touch()


RECORD = SliceRecord(
    volume="a/b",
    dataset="a",
    subject="b",
    session="",
    sequence="T1",
    licence="",
    dtype="float16",
    scale=1.0,
    low=0.0,
    source_sha256="0",
    preprocessing="1",
    registered="",
    sha256="2",
    slices=(1, 2),
    size=224,
)


@pytest.mark.parametrize(
    "change",
    [{"slices": "x"}, {"slices": ["x"]}, {"size": None}, {"scale": "x"}, {"volume": 5}, {"x": 1}],
)
def test_an_edited_record_is_refused(change: dict[str, object]) -> None:
    assert from_json(SliceRecord, to_json(RECORD)) == RECORD
    with pytest.raises(InputError, match=r"the record of volume .* is damaged \("):
        from_json(SliceRecord, {**to_json(RECORD), **change})


@pytest.mark.parametrize("ending", ["/../x.nii.gz", "", "nii", 5, ".nii/../x"])
def test_a_file_ending_is_no_path(ending: object, tmp_path: Path) -> None:
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({"labels": {"a": 1}, "file_ending": ending}))
    with pytest.raises(InputError, match=r"dataset\.json: file_ending"):
        LabelScheme.read(file)


def test_formulas_in_tables_are_marked_and_read_back(tmp_path: Path) -> None:
    rows = [{"case": text, "=value": -0.5, "text": "-0.5"} for text in FORMULAS]
    write_csv(rows, tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as stream:
        cells = list(csv.reader(stream))
    assert cells[0][1] == "'=value"
    assert all(line[0].startswith("'") and line[1:] == ["-0.5", "-0.5"] for line in cells[1:])
    columns, read = read_rows(tmp_path / "scores.csv", "")
    assert columns == ["case", "=value", "text"]
    assert [line["case"] for line in read] == FORMULAS


def test_latex_and_markdown_are_escaped() -> None:
    table = Table(r"\input{/etc/passwd}", (r"~^<>|",), [(Cell("a|b\nc\\\\<script>&%$#_{}"),)])
    latex = to_latex(table)
    assert r"\caption{\textbackslash{}input\{/etc/passwd\}}" in latex
    assert r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}" in latex
    escaped = r"\textbackslash{}\textbackslash{}\textless{}script\textgreater{}\&\%\$\#\_\{\}"
    assert f"a\\textbar{{}}b c{escaped}" in latex
    assert r"| a\|b c\\&lt;script>&%$#_{} |" in to_markdown(table)


def test_a_page_holds_no_markup_of_a_label() -> None:
    table = Table(HTML, (HTML,), [(Cell(HTML),)])
    case = {"name": HTML, "regions": [{"name": HTML}]}
    page = render_page(HTML, HTML, [], [Section(HTML, tables=[table], note=HTML)], [case])
    assert "<img" not in page
    assert "<!--" not in page
    assert page.count("<script") == page.count("</script>") == 2
    data = page.split('id="cases">')[1].split("</script>")[0]
    assert "\u2028" not in data
    assert json.loads(data)[0]["name"] == HTML


def test_figures_show_names_as_they_are() -> None:
    figure, panels = new_figure()
    panels[0].plot([1, 10], [1, 100], label=r"$\undefined{ <script>&$")
    panels[0].set_yscale("log")
    panels[0].set_xticks([1, 10], ["$a$b$", HTML[:20]])
    panels[0].legend()
    drawing = svg(figure)
    assert "<script" not in drawing
    assert drawing.startswith("<?xml")
    assert np.isfinite(len(drawing))
