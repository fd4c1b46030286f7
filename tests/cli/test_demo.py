"""The demo's own logic; `make demo` runs the whole of it."""

from pathlib import Path

import pytest
import torch

from helpers.encoder_files import randomised
from nnunet_fm.cli.demo import comparison, plan_arms
from nnunet_fm.cli.demo_steps import MARKER, StepRunner, check_folder, progress_line


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


def test_the_arms_differ_in_the_encoder_alone(tmp_path: Path) -> None:
    arms = plan_arms("synth_vitt16", None, [])
    assert list(arms) == ["tokens", "tokens_off", "random"]
    assert arms["tokens_off"] == [*arms["tokens"], "--tokens", "off"]
    assert arms["random"][:2] == ["--encoder", "dinov3_vitt16"]
    options = arms["random"][3::2]
    file = tmp_path / "weights.pth"
    torch.save(randomised("dinov3_test16").state_dict(), file)
    given = plan_arms(str(file), "dinov3_test16", ["qkv_bias=false"])
    assert given["tokens"][-2:] == ["--encoder-option", "qkv_bias=false"]
    assert "qkv_bias=false" in given["random"]
    assert all("=" in option for option in options)
    assert list(plan_arms("dinov3_test16", None, [])) == ["tokens", "tokens_off"]  # random already


def test_the_comparison_is_of_the_scores_on_disk(tmp_path: Path) -> None:
    for arm, dice in (("tokens", 0.5), ("tokens_off", 0.25)):
        folder = tmp_path / "scores" / arm
        folder.mkdir(parents=True)
        rows = [f"{case},{region},{dice}" for case in "ab" for region in ("WT", "TC", "ET")]
        (folder / "scores.csv").write_text("\n".join(["case,region,dice", *rows]) + "\n")
    lines = comparison(tmp_path, ["tokens", "tokens_off"]).splitlines()
    assert lines[2].split()[-3:] == ["0.500"] * 3
    assert lines[3].split()[-3:] == ["0.250"] * 3
