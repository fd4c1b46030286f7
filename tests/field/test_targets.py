"""Targets of heads as laboratories write them: the right value, or a refusal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.heads import run_quickly, task_data
from helpers.tables import write_volume_file
from nnunet_fm.data.subject_table import Row
from nnunet_fm.evaluation.survival import concordance
from nnunet_fm.heads.saved_runs import read_run
from nnunet_fm.heads.targets import Targets, read_targets
from nnunet_fm.heads.task import Task, read_task
from nnunet_fm_pretrain.data.preprocessing import Preprocessing
from nnunet_fm_pretrain.probing.inputs import SliceInputs
from nnunet_fm_pretrain.probing.run import probe_table

SMALL = SliceInputs(Preprocessing(size=32, slices=8))


def targets_of(column: str, texts: list[str], **settings: object) -> Targets:
    """Read a target; a survival time ends in 1, 2, 3, ... days."""
    rows = [
        Row(f"s{n}", "", "", {}, values={"days": str(n + 1), column: text})
        for n, text in enumerate(texts)
    ]
    return read_targets(Task.model_validate({"target": column, **settings}), rows)


SURVIVAL = {"kind": "survival", "target": "days", "event": "died", "head": {"batch_size": None}}


@pytest.mark.parametrize(
    ("texts", "events"),
    [
        (["0", "1", "1"], [False, True, True]),
        (["0.0", "1.0", "1"], [False, True, True]),
        (["FALSE", "true", "True"], [False, True, True]),
    ],
)
def test_a_status_is_0_or_1(texts: list[str], events: list[bool]) -> None:
    assert targets_of("died", texts, **SURVIVAL).events.tolist() == events


# Kind: a status that was read as "== 1" and is coded otherwise.
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["1", "2", "2"], r"holds 1 \(1 rows\), 2 \(2 rows\).*2 is an event.*subtract 1. Recode"),
        (["1.0", "2.0"], "subtract 1"),
        (["0", "1", "-9"], r"holds -9 \(1 rows\), 0 .*an empty cell for an unknown status"),
        (["dead", "alive"], r"holds alive \(1 rows\), dead .*allowed: 1 or true for an event"),
        (["0", "1", "9"], r"9 \(1 rows\)"),
        (["0", "0.5", "1"], r"0\.5 \(1 rows\)"),
        (["0", "1", "inf"], "inf"),
    ],
)
@pytest.mark.parametrize("kind", ["survival", "classification"])
def test_any_other_status_is_refused_with_the_values(
    texts: list[str], message: str, kind: str
) -> None:
    settings: dict[str, object] = {**SURVIVAL}
    if kind == "classification":
        settings = {"kind": kind, "target": "days", "event": "died", "threshold": 1.5}
    with pytest.raises(ValueError, match=message):
        targets_of("died", texts, **settings)


@pytest.mark.parametrize("word", ["n/a", "", "NA", "None", "NULL", ".", "nan"])
def test_a_row_without_status_is_left_out_and_counted(word: str) -> None:
    targets = targets_of("died", ["1", word, "0"], **SURVIVAL)
    assert (targets.kept.tolist(), targets.left_out) == ([0, 2], 1)
    assert targets.events.tolist() == [True, False]


def test_r_s_status_gives_the_c_index_after_its_remedy() -> None:
    times = np.arange(1.0, 21)
    died = np.array([1, 2] * 10)
    with pytest.raises(ValueError, match="subtract 1"):
        targets_of("died", [str(code) for code in died], **SURVIVAL)
    targets = targets_of("died", [str(code - 1) for code in died], **SURVIVAL)
    assert concordance(targets.values, targets.events, -times) == 1


def test_a_negative_time_is_in_no_class() -> None:
    rows = [Row(t, "", "", {}, values={"days": t, "died": "1"}) for t in ("-9", "5", "500")]
    task = {"kind": "classification", "target": "days", "event": "died", "threshold": 365}
    with pytest.raises(ValueError, match="days is negative in 1 rows"):
        read_targets(Task.model_validate(task), rows)


def test_negative_days_since_a_stroke_are_refused() -> None:
    with pytest.raises(ValueError, match="days is negative in 1 rows"):
        targets_of("days", ["4", "-2", "9"], kind="regression", loss="stroke_days")


def test_times_in_months_and_a_limit_in_days_are_named(caplog: pytest.LogCaptureFixture) -> None:
    limits = {**SURVIVAL, "exclude_censored_before": 365}
    assert targets_of("died", ["1", "0", "1", "0"], **limits).kept.tolist() == [0, 2]
    assert (
        "=365 excludes all 2 censored rows; the largest days is 4: give both in one" in caplog.text
    )
    caplog.clear()
    targets_of("died", ["1", "0", "1", "0"], **{**SURVIVAL, "exclude_censored_before": 3})
    targets_of("died", ["1", "1"], **limits)
    assert not caplog.text


CLASSES = {"kind": "classification"}


# Kind: one class that is written in two ways.
@pytest.mark.parametrize(
    ("texts", "pair"),
    [
        (["m", "M", "f"], "M and m"),
        (["1", "1.0", "0"], "1 and 1.0"),
        (["01", "1", "0"], "01 and 1"),
        (["IDH mutant", "IDH  mutant", "wild type"], "IDH  mutant and IDH mutant"),
        (["male", "Male", "female"], "Male and male"),
        (["A\u00a0B", "A B", "C"], "A B and A"),
    ],
)
def test_labels_that_differ_only_in_writing_are_refused(texts: list[str], pair: str) -> None:
    with pytest.raises(
        ValueError, match=f"differ only in case, .* number format: {pair}.*classes="
    ):
        targets_of("sex", texts, **CLASSES)
    classes = {text: int(n > 1) for n, text in enumerate(texts)}
    assert targets_of("sex", texts, classes=classes, **CLASSES).values.tolist() == [0, 0, 1]


@pytest.mark.parametrize("word", ["None", "NULL", ".", "n/a", "#N/A", "?", "-"])
def test_words_for_missing_values_are_no_class(word: str) -> None:
    targets = targets_of("sex", ["m", word, "f"], **CLASSES)
    assert (targets.classes, targets.left_out) == (("f", "m"), 1)


def test_a_word_for_missing_values_that_the_task_names_is_a_class() -> None:
    targets = targets_of("resection", ["none", "total"], classes={"none": 0, "total": 1}, **CLASSES)
    assert (targets.classes, targets.left_out) == (("none", "total"), 0)


@pytest.mark.parametrize("text", ["63,5", "1_0", "63 years", "1.234,5"])
def test_a_number_in_another_format_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=f"age holds a value that is not a number: .*{text}.*point"
    ):
        targets_of("age", ["63.5", text], kind="regression")


def test_a_code_for_missing_numbers_is_named(caplog: pytest.LogCaptureFixture) -> None:
    targets_of("age", ["63", "-9", "-9"], kind="regression")
    assert "column age holds -9 in 2 rows" in caplog.text
    caplog.clear()
    targets_of("change", ["63", "-9", "-8"], kind="regression")
    assert not caplog.text


def test_runs_whose_classes_have_other_names_have_other_folders(tmp_path: Path) -> None:
    data = task_data(tmp_path, "classification", target="label", models=("trivial",), ratios=(1.0,))
    renamed = replace(data, targets=replace(data.targets, classes=("case", "control")))
    (_, first), (_, second) = (
        run_quickly(data, tmp_path / "o"),
        run_quickly(renamed, tmp_path / "o"),
    )
    assert first != second
    assert read_run(first).about["classes"] == ["ill", "well"]
    predictions = read_run(second).predictions(1.0, 0)["trivial"]
    assert predictions.cases[0].startswith("s")  # a class may be called like a column
    assert predictions.output.sum(1) == pytest.approx(1)


def test_one_subject_is_not_called_subjects(tmp_path: Path) -> None:
    data = task_data(tmp_path, "classification", target="label")
    first = np.array([0])
    alone = replace(
        data, x=data.x[first], names=["s0"], subjects=["s0"], targets=data.targets.of(first)
    )
    assert alone.summary().startswith("1 case of 1 subject; 0 without a target, 0 without a volume")


def test_predictions_whose_cases_were_overwritten_say_how_to_go_on(tmp_path: Path) -> None:
    data = task_data(tmp_path, "classification", target="label", models=("trivial",), ratios=(1.0,))
    data = replace(data, targets=replace(data.targets, classes=("case", "control")))
    folder = run_quickly(data, tmp_path / "o")[1]
    file = folder / "predictions_ratio_1_seed_0.csv"
    file.write_text(file.read_text().replace("class case", "case"))  # as version 0.1 did
    with pytest.raises(ValueError, match="no column class case; remove .* and rerun"):
        read_run(folder).predictions(1.0, 0)


@pytest.mark.parametrize(
    "word", ["--", "'--", "n.a.", "#NULL!", "#VALUE!", "#DIV/0!", "NaT", "[Not Available]"]
)
def test_what_programs_write_for_a_missing_value_is_no_class(word: str) -> None:
    targets = targets_of("grade", ["2", word, "3"], **CLASSES)
    assert (targets.classes, targets.left_out) == (("2", "3"), 1)


@pytest.mark.parametrize("word", ["Unknown", "indeterminate", "[Not Reported]", "missing"])
def test_a_class_that_may_be_a_missing_value_is_named(
    word: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(targets_of("MGMT", ["negative", word, "positive"], **CLASSES).classes) == 3
    assert f"{word} of MGMT is a class of 1 rows" in caplog.text
    assert f'classes=\'{{"{word}": null' in caplog.text
    caplog.clear()
    classes = {"negative": 0, word: None, "positive": 1}
    assert len(targets_of("MGMT", list(classes), classes=classes, **CLASSES).classes) == 2
    assert not caplog.text


# Kind: numbers whose format or code makes them other numbers.
@pytest.mark.parametrize("texts", [["1.303", "417", "274"], ["12.000", "999", "1.000"]])
def test_points_that_separate_thousands_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="separate thousands. Write 1303 without it"):
        targets_of("OS", texts, kind="regression")


@pytest.mark.parametrize(
    "texts",
    [
        ["60.463", "52.263", "39"],  # ages in years
        ["0.743", "0.810", "120"],
        ["1.303", "417.5", "274"],
        ["1.3030", "417", "274"],
        ["1.303", "2.417", "3.274"],
        ["1.303", "1417", "274"],
    ],
)
def test_decimal_points_stay_decimal_points(texts: list[str]) -> None:
    values = targets_of("age", texts, kind="regression").values
    assert values.tolist() == [float(text) for text in texts]


@pytest.mark.parametrize(("texts", "code"), [(["63", "999", "71"], 999), (["7", "99", "9"], 99)])
def test_a_large_code_for_missing_numbers_is_named(
    texts: list[str], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    targets_of("age", texts, kind="regression")
    assert f"column age holds {code} in 1 rows, and no other so large value" in caplog.text
    caplog.clear()
    targets_of("age", ["63", "99", "71"], kind="regression")
    targets_of("age", ["999", "999"], kind="regression")
    assert not caplog.text


def test_the_advice_on_labels_is_accepted_as_printed() -> None:
    with pytest.raises(ValueError, match="differ only in case") as refusal:
        targets_of("CDR", ["1", "1.0", "0"], **CLASSES)
    advice = str(refusal.value).rpartition("classes='")[2].removesuffix("'")
    numbered = advice.replace("NUMBER", "0", 1).replace("NUMBER", "1")
    task = read_task("classification", [f"classes={numbered}", "target=CDR"])
    assert task.classes == {"0": 0, "1": 1, "1.0": 1}
    with pytest.raises(ValueError, match="label 0.5 is not text; put labels in quotes"):
        read_task("oasis", ["classes={0.5: 1, '0': 0}"])


def test_two_classes_of_one_name_are_refused() -> None:
    classes = {"A/B": 0, "A": 1, "B": 1}
    with pytest.raises(ValueError, match="two classes have one name: A/B, A/B"):
        targets_of("y", ["A/B", "A", "B"], classes=classes, **CLASSES)


# Kind: tables of `pretrain probe`.
@pytest.mark.parametrize(
    ("second", "ages", "message"),
    [
        ("s7", ("63", "64"), "names a subject twice: S07 and s7"),
        ("OAS1_0007_MR2", ("63", "64"), "names a subject twice: OAS1_0007_MR1 and OAS1_0007_MR2"),
        ("s8", ("1.303", "417"), "separate thousands"),
        ("s8", ("1_0", "64"), "has the values"),
    ],
)
def test_a_probe_reads_subjects_and_numbers_as_heads_do(
    second: str, ages: tuple[str, str], message: str, tmp_path: Path
) -> None:
    first = "OAS1_0007_MR1" if second.startswith("OAS1") else "S07"
    lines = ["subject_id,path,age"]
    for n, (subject, age) in enumerate([(first, ages[0]), (second, ages[1]), ("x", "65")]):
        write_volume_file(tmp_path / f"{n}.nii.gz", seed=n)
        lines.append(f"{subject},{n}.nii.gz,{age}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        probe_table({}, tmp_path / "t.csv", ["age"], SMALL, None)
