"""Classes of the user by dotted path."""

from pathlib import Path

import pytest

from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.registry import find_architecture
from nnunet_fm.internal.plugins import find_class
from nnunet_fm.network.decoders import find_decoder


def test_a_class_is_found_and_other_things_are_not() -> None:
    assert find_class("pathlib.Path") is Path
    for name in ("Path", "pathlib.nothing", "nowhere.at.all", "os.getcwd", "a/b.Path"):
        assert find_class(name) is None


def test_a_module_that_fails_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_encoders.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    encoder = build_encoder("dinov3_test16")

    def decoder(name: str) -> object:
        return find_decoder(name, encoder, "dinov3_test16")

    message = r"broken_encoders.X cannot be imported \(ModuleNotFoundError: .*nothing_of_that_name"
    for find in (find_class, find_architecture, decoder):
        with pytest.raises(ValueError, match=message):
            find("broken_encoders.X")
