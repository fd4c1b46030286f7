"""`nnunet-fm info`."""

import json

import pytest

from nnunet_fm.cli.main import main


def test_info_gives_the_papers_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            ["info", "--encoder", "braindino_vitb16", "--channels", "4", "--classes", "3", "--json"]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["total"], found["encoder"], found["trainable"]) == (110718735, 85641984, 25076751)
    assert found["decoder_flops"] == pytest.approx(38.7e9, rel=0.01)
    assert found["encoder_flops"] == pytest.approx(45e9, rel=0.06)
