"""`nnunet-fm doctor`."""

import pytest

from helpers.nnunet import Run
from nnunet_fm.cli import doctor


def test_doctor(run: Run, nnunet: dict[str, str]) -> None:
    output = run("nnunet-fm", "doctor").stdout
    assert "ok    nnunetv2 2." in output
    assert "FAIL" not in output
    output = run(
        "nnunet-fm", "doctor", expect=1, nnUNet_extTrainer="", nnUNet_results="/nowhere"
    ).stdout
    assert 'fix: export nnUNet_extTrainer="$(nnunet-fm trainers-path)"' in output
    assert "mkdir -p '/nowhere'" in output


@pytest.mark.parametrize(
    ("installed", "level"), [("1.0.22", "ok"), ("1.0.23", "fail"), ("0.9.0", "fail")]
)
def test_versions_are_compared_with_the_package_s_own_requirements(
    installed: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "version", lambda _: installed)
    finding = doctor._check_version("timm")
    assert finding.level == level
    assert ("pip install 'timm" in finding.fix) == (level == "fail")
