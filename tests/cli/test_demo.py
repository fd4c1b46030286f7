"""The demo's own logic; `make demo` runs the whole of it."""

from pathlib import Path

import pytest

from nnunet_fm.cli.demo import MARKER, StepRunner, check_folder, progress_line


def test_a_folder_of_other_files_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "nnUNet_raw").mkdir()
    with pytest.raises(FileExistsError, match="not a demo"):
        check_folder(tmp_path)
    assert (tmp_path / "nnUNet_raw").is_dir()
    (tmp_path / MARKER).touch()
    check_folder(tmp_path)
    StepRunner(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [MARKER, "logs"]


def test_a_failing_step_names_its_log(tmp_path: Path) -> None:
    steps = StepRunner(tmp_path / "demo")
    with pytest.raises(
        RuntimeError, match=r"(?s)nnunet-fm info.*1_nnunet-fm\.log.*Did you mean dinov3_vitt16"
    ):
        steps.run("counting", ["nnunet-fm", "info", "--encoder", "dinov3_vitx16"])


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("2026-01-01 00:00:00.1: Epoch 3\n", "Epoch 3 of 11"),
        ("2026-01-01 00:00:00.1: Epoch time: 3.2 s\n", ""),
        (
            "2026-01-01 00:00:00.1: Pseudo dice "
            "[np.float32(0.5), np.float32(nan), np.float32(0.25)]\n",
            "validation patches, Dice WT 0.5, TC nan, ET 0.25",
        ),
    ],
)
def test_progress_lines_of_a_log(line: str, shown: str) -> None:
    assert progress_line(line) == shown
