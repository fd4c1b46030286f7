"""The estimate before an extraction."""

from pathlib import Path

import pytest
import torch

from helpers.tables import write_table, write_volume_file
from nnunet_fm.cli.main import main
from nnunet_fm.features.cost import cost_text, seconds_per_volume
from nnunet_fm.features.opening import open_encoder


def test_the_faster_precision_is_named_only_if_it_is_much_faster() -> None:
    slow = {"bfloat16": 30.0, "float32": 6.0}
    assert "about 20 min (40 volumes, 30 s each in bfloat16); with --precision float32" in (
        cost_text(40, slow)
    )
    assert "--precision" not in cost_text(40, {"bfloat16": 5.0, "float32": 6.0})
    assert "--precision" not in cost_text(40, {"float32": 6.0, "bfloat16": 5.0})
    assert cost_text(3, {"float32": 7200.0}, "visit") == (
        "the encoder takes about 6.0 h (3 visits, 2.0 h each in float32)"
    )


@pytest.mark.parametrize("encoder", ["dinov3_test16", "flexict_test8"])
def test_a_volume_is_timed_in_both_precisions_on_a_cpu(encoder: str) -> None:
    module, recipe = open_encoder(encoder, shape=(16, 32, 32))
    seconds = seconds_per_volume(module, recipe, torch.device("cpu"))
    assert list(seconds) == ["bfloat16", "float32"]
    assert all(0 < value < 60 for value in seconds.values())


def test_extraction_of_several_volumes_says_first_how_long_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for n in range(6):
        write_volume_file(tmp_path / f"{n}.nii.gz", n, (18, 24, 30))
        rows.append({"subject_id": f"s{n}", "T1": f"{n}.nii.gz"})
    table = write_table(tmp_path / "t.csv", rows)
    words = ["features", "extract", str(table), "--cache", str(tmp_path / "c")]
    words += ["--encoder", "dinov3_test16", "--shape", "8", "32", "32", "-np", "1"]
    assert main(words) == 0
    output = capsys.readouterr().out
    assert output.index("the encoder takes about") < output.index("6 volumes extracted")
    assert "(6 volumes, " in output
    assert main(words) == 0
    assert "the encoder takes about" not in capsys.readouterr().out  # all are cached
