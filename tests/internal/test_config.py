"""Strict YAML settings, and keys that are overridden on the command line."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices, Field

from nnunet_fm.internal.config import Part, parse_settings, read_settings


class Run(Part):
    """A part with a key that had another name."""

    retries: int = Field(3, validation_alias=AliasChoices("retries", "tries"))
    device: str = "cpu"


class Settings(Part):
    """Settings with a part, and a mapping with numbers as keys."""

    run: Run = Run()
    cases: dict[int, int] = Field(default_factory=dict)


def read(folder: Path, text: str, *overrides: str) -> Settings:
    (folder / "s.yaml").write_text(text)
    return read_settings(Settings, folder / "s.yaml", folder, overrides)


def test_overrides_replace_values_and_add_keys(tmp_path: Path) -> None:
    settings = read(tmp_path, "{run: {retries: 1}, cases: {7: 1}}", "run.retries=2", "cases.7=5")
    assert (settings.run.retries, settings.cases) == (2, {7: 5})
    assert read(tmp_path, "{}", "run.device=cuda").run == Run(device="cuda")
    assert read(tmp_path, "{run: {tries: 1}}", "run.tries=2").run.retries == 2


@pytest.mark.parametrize(("file", "typed"), [("retries", "tries"), ("tries", "retries")])
def test_a_key_next_to_its_former_name_is_refused(file: str, typed: str, tmp_path: Path) -> None:
    message = "run: retries and tries are two names of one key; give one of them"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, f"{{run: {{{file}: 1}}}}", f"run.{typed}=2")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.retries", "'run.retries' is not KEY=VALUE"),
        ("run.retries.x=1", "'run.retries.x': retries holds no keys"),
        ("run.retry=1", "unknown key 'run.retry'. Did you mean run.retries"),
        ("run.retries=many", "run.retries: Input should be a valid integer.*given: 'many'"),
        ("run.retries=[", "the value is not YAML"),
    ],
)
def test_overrides_that_mean_nothing_are_refused(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "{run: {retries: 1}}", override)


def test_every_problem_is_named(tmp_path: Path) -> None:
    content: dict[str, Any] = {"run": {"retries": "x", "devices": 1}, "cases": {"a": 1}}
    with pytest.raises(ValueError, match="s.yaml is not valid:") as raised:
        parse_settings(Settings, content, "s.yaml")
    lines = str(raised.value).splitlines()
    assert len(lines) == 4
    assert any("run.devices" in line and "Did you mean run.device" in line for line in lines)
