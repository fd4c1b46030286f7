"""The report through the command line: page, tables, figures; unfinished sweeps."""

import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from helpers.runs import CASES, DATASET, ENCODERS, Made, image, labels, scored
from nnunet_fm.cli.main import main
from nnunet_fm.evaluation.labels import LabelScheme, Region
from nnunet_fm.evaluation.metrics import dice
from nnunet_fm.experiments.encoder_runs import group_runs
from nnunet_fm.experiments.perturbed_predictions import FOLDER
from nnunet_fm.experiments.report import write_report
from nnunet_fm.experiments.report.cases import ReportCase, read_cases, viewer_data
from nnunet_fm.experiments.report.page import Section, render_page
from nnunet_fm.experiments.report.table_formats import to_latex, to_markdown
from nnunet_fm.experiments.report.tables import Cell, Table, summary_table
from nnunet_fm.experiments.run_scores import score_runs
from nnunet_fm.experiments.runs import write_runs
from nnunet_fm.experiments.summary import METRICS, compare_encoders, summarise

LABELS = LabelScheme((Region("x", (1,)),))


@pytest.fixture
def environment(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)


def report(made: Made, out: Path, *words: str) -> str:
    assert main(["report", str(made.sweep), "-o", str(out), "-np", "1", *words]) == 0
    return (out / "report.html").read_text()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.usefixtures("environment")
def test_page_tables_and_figures(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    page = report(made, out, "--title", "Made <up>", "--case", "c")
    assert "Made &lt;up&gt;" in page
    assert "UNFINISHED" not in capsys.readouterr().out
    assert 'class="unfinished"' not in page
    assert len(rows(out / "tables" / "cases.csv")) == 12 * 3 * len(CASES)
    assert len(rows(out / "tables" / "tests.csv")) == 2 * 2 * 3 * 5
    table = (out / "tables" / f"{DATASET}_dice.md").read_text()
    assert re.search(r"\| 1 \| 10 \| good \| \*\*0\.\d{3} ± 0\.\d{3}\*\* ", table)
    assert r"\toprule" in (out / "tables" / f"{DATASET}_dice.tex").read_text()
    names = {p.name for p in (out / "figures").iterdir()}
    for stem in (f"{DATASET}_dice_ratios", f"{DATASET}_hd95_mm_ratios", f"{DATASET}_dice_cases"):
        assert {f"{stem}.png", f"{stem}.svg"} <= names
    assert f"{DATASET}_case_asked_c.png" in names
    assert all((out / "figures" / n).stat().st_size > 3000 for n in names)
    cost = rows(out / "tables" / "cost.csv")
    assert {c["learned"] for c in cost} == {"600"}
    assert (out / "tables" / "cost.md").read_text().count("2.00 (process)") == 3
    assert page.count("0123456789abcdef") >= 8  # the encoders' hashes


@pytest.mark.usefixtures("environment")
def test_the_same_report_has_the_same_bytes(made: Made, tmp_path: Path) -> None:
    """Whatever the hash seed of the process, and in a terminal that knows ASCII alone."""
    report(made, tmp_path / "here")
    ascii_terminal = {"PYTHONHASHSEED": "1", "PYTHONUTF8": "0", "LC_ALL": "POSIX"}
    words = ["report", str(made.sweep), "-o", str(tmp_path / "there"), "-np", "1"]
    child = subprocess.run(
        [sys.executable, "-m", "nnunet_fm.cli", *words],
        env={**os.environ, **ascii_terminal, "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
    )
    assert child.returncode == 0, child.stderr
    here, there = contents(tmp_path / "here"), contents(tmp_path / "there")
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Outside(HTMLParser):
    """Collects everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("data:", "#"))
        ]


@pytest.mark.usefixtures("environment")
def test_the_page_fetches_nothing_and_its_pictures_have_words(made: Made, tmp_path: Path) -> None:
    page = report(made, tmp_path / "out")
    outside = Outside()
    outside.feed(page)
    assert not outside.found
    assert "content=\"default-src 'none'; img-src data:;" in page  # and the browser would refuse to
    assert page.count("<img") == page.count('<img class="chart" alt="') > 4
    assert page.count("<img") == len(
        list((tmp_path / "out" / "figures").glob("*.png"))
    )  # each once, whatever its name
    assert "/tmp" not in re.sub(r"data:[^\"]+", "", page.split("application/json")[0])


@pytest.mark.usefixtures("environment")
def test_an_unfinished_sweep_is_drawn_and_says_so(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made.runs[1].folder / "checkpoint_final.pth").unlink()
    shutil.rmtree(made.runs[5].folder)
    page = report(made, tmp_path / "out")
    assert "UNFINISHED: 2 of 12 runs are not in the report" in capsys.readouterr().out
    assert "Unfinished: 2 runs are not in this report" in page
    assert f"{made.runs[1].name}: new, epoch 1/1" in page
    for run in made.runs:
        (run.folder / "checkpoint_final.pth").unlink(missing_ok=True)
    assert main(["report", str(made.sweep), "-o", str(tmp_path / "out")]) == 2
    assert "none of the 12 runs is finished" in capsys.readouterr().err


@pytest.mark.usefixtures("environment")
def test_without_raw_images_the_page_says_why_there_are_no_pictures(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_raw")
    page = report(made, tmp_path / "out")
    assert "nnUNet_raw is not set: no pictures of cases" in page
    assert 'id="canvas"' not in page
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nowhere"))
    assert "holds no dataset.json" in report(made, tmp_path / "other")


@pytest.mark.usefixtures("environment")
def test_a_lack_of_file_handles_is_no_lack_of_pictures(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> list[ReportCase]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(write_report, "read_cases", fails)
    out = tmp_path / "out"
    assert main(["report", str(made.sweep), "-o", str(out), "-np", "1"]) != 0
    assert "too many open files" in capsys.readouterr().err
    assert not (out / "report.html").exists()


@pytest.mark.usefixtures("environment")
def test_perturbed_predictions_become_bars_curves_and_rows(made: Made, tmp_path: Path) -> None:
    settings = {"none": 0, "gibbs_0.2": 1, "gibbs_0.4": 3, "gamma_2": 2}
    for run in made.runs:
        if run.ratio == 1 and run.encoder != "stock":
            for name, shift in settings.items():
                for n, case in enumerate(CASES):
                    image(labels(n, shift), run.folder / FOLDER / name / f"{case}.nii.gz")
    out = tmp_path / "out"
    page = report(made, out)
    found = [
        r
        for r in rows(out / "tables" / "robustness.csv")
        if (r["region"], r["metric"]) == ("whole", "dice")
    ]
    curve = [
        (r["family"], r["severity"], float(r["value"])) for r in found if r["encoder"] == "good"
    ]
    assert [c[:2] for c in curve] == [
        ("gamma", "1.0"),
        ("gamma", "2.0"),
        ("gibbs", "0.0"),
        ("gibbs", "0.2"),
        ("gibbs", "0.4"),
    ]
    values = [v for *_, v in curve]
    assert values[0] == values[2] == 1.0
    assert values[2] > values[3] > values[4]
    assert {r["encoder"] for r in found} == {"good", "poor"}
    assert all(float(r["change"]) == 0 for r in found if r["severity"] in ("0.0",))
    assert "under perturbations of images at ratio 1" in page
    assert (out / "figures" / f"{DATASET}_robustness_1.png").is_file()


def test_marks_need_enough_cases() -> None:
    cases = {f"c{n}": 0.5 + n / 100 for n in range(9)}
    better = {c: d + 0.1 for c, d in cases.items()}
    for names, marks, words in (
        (list(cases), 1, "* differs from a"),
        (list(cases)[:4], 0, "cannot be significant"),
    ):
        runs = [scored(e, 1, 0, {c: v[c] for c in names}) for e, v in (("a", cases), ("b", better))]
        found = group_runs(runs)
        grid = summary_table(
            DATASET, METRICS[0], summarise(found), compare_encoders(found, ["a", "b"])
        )
        assert sum(cell.marked for row in grid.rows for cell in row) == marks
        assert words in grid.caption


def test_cells_are_escaped_where_they_are_shown() -> None:
    grid = Table("a_b", ("h&h",), [(Cell("1_0 % <b>", best=True, marked=True),)])
    assert r"\textbf{1\_0 \% \textless{}b\textgreater{}}$^{*}$" in to_latex(grid)
    assert r"\caption{a\_b}" in to_latex(grid)
    assert r"| **1_0 % &lt;b>** \* |" in to_markdown(grid)
    page = render_page(
        "<title>", "<about>", [], [Section("<s>", tables=[grid])], [{"<c>": "</script>"}]
    )
    assert "<b>1_0 % &lt;b&gt;</b><sup" in page
    assert '<th scope="col">h&amp;h</th>' in page
    for text in ("<title>&lt;title&gt;", "&lt;about&gt;", "&lt;s&gt;"):
        assert text in page
    assert page.count("</script>") == 2
    assert "<c>" not in page


def test_the_viewers_volumes_are_cut_to_what_is_there() -> None:
    channel = np.zeros((6, 8, 10), np.float32)
    channel[1:4, 2:7, 3:9] = np.arange(3 * 5 * 6).reshape(3, 5, 6) + 1
    truth = np.zeros(channel.shape, np.uint8)
    truth[2, 3, 4] = 1
    case = ReportCase(
        "D", "c", "worst", {}, (3.0, 1.0, 1.0), {"T1": channel}, truth, {"e": truth}, LABELS
    )
    data = viewer_data(case, {"e": 0})
    assert data["shape"] == [3, 5, 6]
    assert data["start"] == 1
    assert [x["name"] for x in data["labels"]] == ["truth", "e"]
    json.dumps(data)
    nothing = np.zeros_like(truth)
    assert (
        viewer_data(replace(case, truth=nothing), {"e": 0})["start"] == 1
    )  # where the prediction is
    assert replace(case, truth=nothing, predictions={}).main_slice == 3


def test_the_reference_is_among_the_five_that_are_shown(made: Made) -> None:
    found = group_runs(score_runs(made.runs, made.preprocessed, workers=1))
    several = [replace(g, encoder=f"{g.encoder}{n}") for n in range(3) for g in found]
    cases = read_cases(several, "poor2", "mean", made.raw, made.preprocessed, ["a"])
    assert all(next(iter(c.predictions)) == "poor2" and len(c.predictions) == 5 for c in cases)
    roles = {c.name: c.role for c in cases}
    assert sorted(" ".join(roles.values()).replace(",", "").split()) == ["asked", "median", "worst"]
    for case in cases:  # the Dice in the title is that of the mask that is drawn
        regions = [(1, 2), (2,)]
        drawn = [
            dice(np.isin(case.predictions["poor2"], r), np.isin(case.truth, r)) for r in regions
        ]
        assert case.dice["poor2"] == pytest.approx(np.mean(drawn))


@pytest.mark.usefixtures("environment")
def test_several_folders_make_one_report(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = made.runs[0].folder.parents[1] / "AnotherTrainer__SW_good_r020_s1__2d_fm32"
    shutil.copytree(made.runs[0].folder.parent, other)
    words = ["report", str(made.sweep), str(other), "-o", str(tmp_path / "out"), "-np", "1"]
    assert main(words) == 0
    tables = tmp_path / "out" / "tables"
    assert {r["encoder"] for r in rows(tables / "cost.csv")} == {*ENCODERS, "SW_good"}
    write_runs(
        [replace(made.runs[0], folder=other / "fold_0", trainer="AnotherTrainer")],
        tmp_path / "second",
    )
    assert (
        main(
            [
                "report",
                str(made.sweep),
                str(tmp_path / "second"),
                "-o",
                str(tmp_path / "out"),
                "-np",
                "1",
            ]
        )
        == 0
    )
    assert "good (AnotherTrainer)" in {r["encoder"] for r in rows(tables / "cost.csv")}
    assert main([*words, "--case", "nobody"]) == 2
    assert (
        "no run validated the case nobody; allowed after --case: a, b.1, c, d"
        in capsys.readouterr().err
    )


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("damaged", ["validation", "perturbed"])
def test_one_truncated_prediction_is_left_out_of_all_runs(
    damaged: str,
    made: Made,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write_report, "_charts", lambda *_: [])  # takes most of the time
    if damaged == "validation":
        file = made.runs[1].folder / "validation" / f"{CASES[0]}.nii.gz"
    else:
        for run in made.runs:
            for number, case in enumerate(CASES):
                image(labels(number), run.folder / FOLDER / "none" / f"{case}.nii.gz")
        file = made.runs[1].folder / FOLDER / "none" / f"{CASES[0]}.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    out = tmp_path / "out"
    assert main(["report", str(made.sweep), "-o", str(out), "-np", "1"]) == 1
    assert f"not scored: {CASES[0]} of {DATASET} is left out of all its runs" in (
        capsys.readouterr().err
    )
    scored_cases = {row["case"] for row in rows(out / "tables" / "cases.csv")}
    assert scored_cases == {*CASES[1:]}
    page = (out / "report.html").read_text()
    assert "cannot be read: 1." in page
    assert str(file) in page
