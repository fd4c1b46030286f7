"""Tables as laboratories have them: the right value, or a refusal that says what to do."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from helpers.heads import run_quickly, task_data
from nnunet_fm.cli.main import main
from nnunet_fm.data.subject_table import Row, read_table
from nnunet_fm.data.table_rows import read_rows
from nnunet_fm.evaluation.intervals import mean_limits
from nnunet_fm.evaluation.paired_tests import cohen_dz, permutation_p, rank_biserial, wilcoxon_p
from nnunet_fm.evaluation.survival import concordance, kaplan_meier, median_survival
from nnunet_fm.heads.saved_runs import read_run
from nnunet_fm.heads.targets import Targets, read_targets
from nnunet_fm.heads.task import Task
from nnunet_fm_pretrain.data.exclusion import read_subjects, without_subjects
from nnunet_fm_pretrain.data.sources import Source

TESTED = ["007,a.nii,test", "012,b.nii,test", "100,c.nii,train"]


def write_tested(folder: Path, rows: list[str] | None = None) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(["subject_id,T1,split", *(rows or TESTED)]))
    return path


# Kind: a list of pretraining subjects that names a tested subject in another spelling.
SEEN_LISTS = {
    "ids without leading zeros": "7\n99\n",
    "ids with more zeros": "0007\n",
    "ids in double quotes": '"007"\n"099"\n',
    "ids in single quotes": "'007'\n",
    "ids in Excel's text form": '="007"\n',
    "ids that became floats": "subject_id,age\n7.0,64\n,\n",
    "semicolons": "subject_id;age\n007;63,5\n",
    "semicolons, id not first, a comma in the header": "age, years;subject_id\n63,5;007\n",
    "semicolons after Excel's sep line": "sep=;\nsubject_id;age\n007;63\n",
    "vertical bars": "subject_id|age\n007|63\n",
    "a quoted header": '"subject_id"\n"007"\n',
    "quoted cells after spaces": 'subject_id, "site"\n007, "A, B"\n',
    "a column named with spaces": "age , subject_id \n63 , 007 \n",
    "the prefix of BIDS": "sub-007\n",
    "upper case prefix of BIDS": "participant_id\tage\nSUB-007\t63\n",
    "an unknown dataset": "subject_id,dataset\n007,n/a\n",
    "old Mac line ends": "subject_id,age\r007,63\r",
    "folders with a slash": "007/\n",
    "UTF-16": "subject_id,site\n007,Köln\n".encode("utf-16"),
    "UTF-16 without mark": "subject_id,site\n007,Köln\n".encode("utf-16-le"),
    "Windows-1252": "subject_id,site\n007,Köln\n".encode("cp1252"),
    "UTF-8 with mark": "subject_id\n007\n".encode("utf-8-sig"),
}


@pytest.mark.parametrize("kind", SEEN_LISTS)
def test_a_tested_subject_is_found_however_the_list_spells_it(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = SEEN_LISTS[kind]
    content = listed if isinstance(listed, bytes) else listed.encode()
    (tmp_path / "seen.csv").write_bytes(content)
    words = ["--pretrain", str(tmp_path / "seen.csv"), "--cache", str(tmp_path / "cache")]
    code = main(["features", "check-leakage", str(write_tested(tmp_path)), *words])
    assert (code, "1 of 2 tested rows" in capsys.readouterr().out) == (3, True)


# Kind: a list that cannot match because its ids have another form: no check, not a passed one.
OTHER_FORMS = {
    "folders instead of cases": "HGG\nLGG\n",
    "a prefix that the table lacks": "patient_007\n",
    "a header that is no id column": "case\nP-7\n",
    "columns separated by spaces": "subject id\nS 7\n",
}


@pytest.mark.parametrize("kind", OTHER_FORMS)
def test_a_list_in_another_form_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seen.txt").write_text(OTHER_FORMS[kind])
    words = ["features", "check-leakage", str(write_tested(tmp_path))]
    words += ["--pretrain", str(tmp_path / "seen.txt"), "--cache", str(tmp_path / "cache")]
    assert main(words) == 2
    assert "is written like a subject of" in capsys.readouterr().err
    assert main([*words, "--allow-no-match"]) == 0
    assert "0 of 2 tested rows were seen before" in capsys.readouterr().out


def test_a_list_of_other_subjects_in_the_same_form_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seen.txt").write_text("8\n013\n")
    listed = ["--pretrain", str(tmp_path / "seen.txt"), "--cache", str(tmp_path / "cache")]
    assert main(["features", "check-leakage", str(write_tested(tmp_path)), *listed]) == 0
    (tmp_path / "seen.txt").write_text("IXI002-Guys-0828\n")
    table = str(write_tested(tmp_path, ["BraTS-GLI-00001-000,a.nii,test"]))
    assert main(["features", "check-leakage", table, *listed]) == 0
    assert "0 of 1 tested rows were seen before" in capsys.readouterr().out


def test_ids_with_a_hash_are_not_cut_to_one_subject(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seen.txt").write_text("P#1\nP#2  # a comment\n")
    table = str(write_tested(tmp_path, ["P#2,a.nii,test", "P#3,b.nii,test"]))
    words = ["--pretrain", str(tmp_path / "seen.txt"), "--cache", str(tmp_path / "cache")]
    assert main(["features", "check-leakage", table, *words]) == 3
    assert "1 of 2 tested rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    "listed", ["7\n", '"007"\n', "SUB-007\n", "ixi/7\n", "subject_id;age\n007;63,5\n", "007/\n"]
)
def test_pretraining_excludes_a_subject_however_the_list_spells_it(
    listed: str, tmp_path: Path
) -> None:
    (tmp_path / "exclude.csv").write_text(listed)
    sources = [Source(subject, "IXI", "T1", Path("x")) for subject in ("007", "008")]
    kept, unmatched = without_subjects(sources, read_subjects(tmp_path / "exclude.csv"))
    assert ([source.subject for source in kept], unmatched) == (["008"], [])


def test_pretraining_excludes_a_subject_by_its_id_in_another_collection(tmp_path: Path) -> None:
    source = Source("BraTS-GLI-00097-000", "BraTS2023", "T1", Path("x"))
    assert without_subjects([source], ["BraTS2021_00097"]) == ([], [])
    table = tmp_path / "ucsf.csv"
    table.write_text("subject_id,BraTS21 ID\nUCSF-PDGM-004,BraTS2021_00097\n")
    assert without_subjects([source], read_subjects(table))[0] == []


# Kind: a table whose cells do not stand where they seem to.
REFUSED_TABLES = {
    "an unquoted comma": (
        "subject_id,site,age,T1\n1,A,64,a.nii\n2,Essen, Ruhr,64,b.nii\n",
        "header has 4 columns, but line 3 has 5. Put quotes around a cell that contains ','",
    ),
    "a missing cell": ("subject_id,age,T1\n1,a.nii\n", "header has 3 columns, but line 2 has 2"),
    "decimal commas": ("subject_id,age,T1\n1,63,5,a.nii\n", "line 2 has 4"),
    "a trailing comma": ("subject_id,T1\n1,a.nii,\n", "line 2 has 3"),
    "a column twice": ("subject_id,age,T1,age\n1,64,a.nii,46\n", "two columns named age"),
    "an id column twice": ("subject_id,subject_id,T1\n1,2,a.nii\n", "two columns named subject_id"),
    "names that differ by spaces": ("subject_id,age, age\n1,64,46\n", "two columns named age"),
    "a quote that is not closed": ('subject_id,T1\n1,"a.nii\n2,b.nii\n', "line 3: unexpected end"),
    "a quote inside a quoted cell": ('subject_id,T1\n1,"a "x" b"\n', "line 2: .* is written twice"),
    "a workbook": (b"PK\x03\x04\x14\x00", "is a workbook or an archive; save the table as CSV"),
    "bytes that are no text": (b"subject_id,T1\n1,\x8d\x81\n", "t.csv is not text"),
    "a binary file": (b"\x5c\x01" + bytes(6), "t.csv is not text"),
}


@pytest.mark.parametrize("kind", REFUSED_TABLES)
def test_a_table_with_shifted_or_unreadable_cells_is_refused(kind: str, tmp_path: Path) -> None:
    content, message = REFUSED_TABLES[kind]
    file = tmp_path / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as refusal:
        read_rows(file)
    assert str(file) in str(refusal.value)


# Kind: a table that is written another way and says the same.
SAME_TABLES = {
    "UTF-16": "subject_id,site,T1\n007,Köln,a.nii\n".encode("utf-16"),
    "UTF-16 without mark": "subject_id,site,T1\n007,Köln,a.nii\n".encode("utf-16-be"),
    "UTF-32": "subject_id,site,T1\n007,Köln,a.nii\n".encode("utf-32"),
    "Windows-1252": "subject_id,site,T1\n007,Köln,a.nii\n".encode("cp1252"),
    "row numbers of pandas": ",subject_id,site,T1\n0,007,Köln,a.nii\n".encode(),
    "empty columns at the end": "subject_id,site,T1,,\n007,Köln,a.nii,,\n".encode(),
    "R's quotes": '"subject_id" "site" "T1"\n"007" "Köln" "a.nii"\n'.replace(
        '" "', '"\t"'
    ).encode(),
    "a blank line in between": "subject_id,site,T1\n\n007,Köln,a.nii\n\n".encode(),
    "single quotes": "'subject_id';'site';'T1'\n'007';'Köln';'a.nii'\n".encode(),
}


@pytest.mark.parametrize("kind", SAME_TABLES)
def test_a_table_is_read_however_it_was_exported(kind: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(SAME_TABLES[kind])
    rows = read_rows(tmp_path / "t.csv")
    assert rows.cells == [{"subject_id": "007", "site": "Köln", "T1": "a.nii"}]
    assert rows.columns == ("subject_id", "site", "T1")


def test_a_guessed_encoding_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_bytes("subject_id,site\n007,Köln\n".encode("cp1252"))
    read_rows(tmp_path / "t.csv")
    assert "t.csv is not UTF-8; read as Windows-1252, e.g. 'Köln'" in caplog.text


@pytest.mark.parametrize("word", ["None", "NULL", ".", "<NA>", "#N/A", "-", "?", "NaN", ""])
def test_words_for_missing_values_are_no_paths_and_no_splits(word: str, tmp_path: Path) -> None:
    lines = ["subject_id,T1,T2,split", "1,a.nii,b.nii,train", f"2,c.nii,{word},{word}"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    row = read_table(tmp_path / "t.csv").rows[1]
    assert (sorted(row.volumes), row.split) == (["T1"], "")


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
    alone = replace(data, names=["s0"], subjects=["s0"], targets=data.targets.of(np.array([0])))
    assert alone.summary().startswith("1 case of 1 subject; 0 without a target, 0 without a volume")


# Kind: rounding errors that move a result by a whole step.
def test_a_median_survival_at_exactly_one_half_is_reached() -> None:
    times = np.array([22.0, 11, 16, 1, 20, 17, 15, 22, 1, 11])
    events = np.array([0, 1, 1, 1, 1, 1, 1, 0, 1, 1], bool)
    assert median_survival(kaplan_meier(times, events))[0] == 15


def exact_median(times: np.ndarray, events: np.ndarray) -> float:
    share = Fraction(1)
    for time in np.unique(times):
        died = int(events[times == time].sum())
        share *= 1 - Fraction(died, int((times >= time).sum()))
        if share <= Fraction(1, 2):
            return float(time)
    return float("nan")


def test_a_median_survival_is_that_of_exact_fractions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        times = rng.integers(1, 25, 10).astype(float)
        events = rng.random(10) < 0.8
        median = median_survival(kaplan_meier(times, events))[0]
        assert median == pytest.approx(exact_median(times, events), nan_ok=True)


def test_equal_differences_of_pairs_tie() -> None:
    first = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.5])
    second = first + np.array([0.1, -0.1, 0.1, 0.1, 0.1, -0.1])
    exact = np.array([1.0, -1, 1, 1, 1, -1])
    assert wilcoxon_p(first, second) == pytest.approx(wilcoxon_p(np.zeros(6), exact))
    assert rank_biserial(first, second) == pytest.approx(1 / 3)
    assert np.isnan(cohen_dz(first, first + 0.1))
    assert wilcoxon_p(np.array([0.1 + 0.2, 0.5]), np.array([0.3, 0.5])) == 1


def test_a_permutation_p_of_large_values_counts_ties() -> None:
    first = np.array([1, 2, 3, 7, 5]) * 1e6 / 7
    second = first + np.array([1, 1, 1, -1, -1]) * 1e5 / 7
    p = permutation_p(lambda values: float(values.mean()), first, second, 500)
    assert p == 1  # five equal differences, swapped or not, sum to at least one of them


# Kind: limits that claim 95 % and contain the true value less often.
def test_limits_of_seven_patients_hold_or_are_labelled(tmp_path: Path) -> None:
    hits = 0
    for seed in range(300):
        low, high = mean_limits(np.random.default_rng(seed).normal(0.8, 0.1, 7))
        hits += low <= 0.8 <= high
    assert hits / 300 > 0.92
    data = task_data(tmp_path, "classification", target="label", models=("linear", "trivial"))
    splits = ["train" if n > 7 else "test" for n in range(len(data.names))]
    _, folder = run_quickly(replace(data, splits=splits), tmp_path / "o")
    table = (folder / "results.md").read_text()
    assert "less often than in 95 %" in table
    assert "0.5 to 0.5" not in table  # of the trivial model, whatever the cases


def test_predictions_whose_cases_were_overwritten_say_how_to_go_on(tmp_path: Path) -> None:
    data = task_data(tmp_path, "classification", target="label", models=("trivial",), ratios=(1.0,))
    data = replace(data, targets=replace(data.targets, classes=("case", "control")))
    folder = run_quickly(data, tmp_path / "o")[1]
    file = folder / "predictions_ratio_1_seed_0.csv"
    file.write_text(file.read_text().replace("class case", "case"))  # as version 0.1 did
    with pytest.raises(ValueError, match="no column class case; remove .* and rerun"):
        read_run(folder).predictions(1.0, 0)
