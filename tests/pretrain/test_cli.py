import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from helpers.pretraining import small_recipe, write_volume_file
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import load_encoder
from nnunet_fm.encoders.licence import check_licence
from nnunet_fm_pretrain.cli import add_commands
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.hub_folder import encoder_card


def test_the_whole_pipeline(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run = str(tmp_path / "store"), str(tmp_path / "run")
    (tmp_path / "exclude.txt").write_text("S05\n")
    words = [
        "pretrain",
        "prepare",
        str(volumes),
        "-o",
        store,
        "--size",
        "32",
        "--slices",
        "8",
        "-np",
        "1",
    ]
    assert main([*words, "--registered", "--exclude-subjects", str(tmp_path / "exclude.txt")]) == 0
    said = capsys.readouterr().out
    assert "10 volumes made, 0 ready, 0 failed" in said
    assert "5 sessions with FLAIR, T1\n" in said
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(small_recipe()))
    words = [
        "pretrain",
        "run",
        str(tmp_path / "r.yaml"),
        "--store",
        store,
        "-o",
        run,
        "--accelerator",
        "cpu",
    ]
    assert main([*words, "optimiser.steps=3", "run.workers=0"]) == 0
    assert "pretrain export" in capsys.readouterr().out
    encoder = str(tmp_path / "encoder.safetensors")
    assert main(["pretrain", "export", run, "-o", encoder]) == 0
    assert main(["encoders", "verify", encoder]) == 0
    said = capsys.readouterr().out
    assert "dinov3_test16.trained (dinov3_test16), chosen by: the card in the file" in said
    assert "subjects      5" in said
    hub = tmp_path / "tiny-brain"
    assert main(["pretrain", "export", run, "--hub", str(hub)]) == 0
    assert f"hf upload OWNER/tiny-brain {hub}" in capsys.readouterr().out
    _check_hub_folder(hub, Path(encoder))
    assert main(["pretrain", "export", run, "--hub", str(hub)]) == 2
    assert "tiny-brain is not empty" in capsys.readouterr().err
    assert main(["pretrain", "export", run, "--hub", str(tmp_path / "my model")]) == 2
    assert "'my model' is no name of a model on the Hub" in capsys.readouterr().err
    assert main(["pretrain", "export", run, "-o", encoder, "--i-have-permission"]) == 2
    assert "--i-have-permission is for --hub" in capsys.readouterr().err


def _check_hub_folder(hub: Path, encoder: Path) -> None:
    """Compare a folder for the Hub with the weight file of the same run."""
    assert sorted(path.name for path in hub.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    _, report = load_encoder(hub / "model.safetensors")
    _, exported = load_encoder(encoder)
    assert (report.sha256, report.about) == (exported.sha256, exported.about)
    config = json.loads((hub / "config.json").read_text())
    assert (config["architecture"], config["recipe"]["optimiser"]["steps"]) == ("dinov3_test16", 3)
    card = ModelCard.load(hub / "README.md")
    assert card.data.license_name is None
    assert "**Licence**: not stated yet. Before uploading" in card.text
    assert card.data.library_name == "nnunet-fm"
    assert f"SHA-256 `{report.file_sha256}`" in card.text
    assert "3 of 3 steps) on\n5 subjects of" in card.text
    assert "nnunet-fm plan -d DATASET --encoder hf://OWNER/tiny-brain" in card.text


@pytest.mark.parametrize(
    "terms",
    [
        "CC BY-NC-ND 4.0",
        "cc-by-nc-nd-4.0 (as its repository states)",
        "Attribution-NonCommercial-NoDerivatives 4.0",
        "none found",
    ],
)
def test_derivatives_that_may_not_be_passed_on(terms: str) -> None:
    note = f"a derivative of x, to be passed on under the terms of its licence: {terms}"
    with pytest.raises(ValueError, match="^these weights are a derivative of x.*--i-have-permiss"):
        check_licence(note, permitted=False)
    check_licence(note, permitted=True)


def test_the_model_card_of_a_derivative() -> None:
    licence = "a derivative of x, to be passed on under the terms of its licence: CC BY-NC-SA 4.0"
    check_licence(licence, permitted=False)
    check_licence("as its author says", permitted=False)
    about = {"licence": licence, "method": "mae2d", "architecture": "a", "step": 1, "steps": 2}
    about |= {"subjects": 3, "datasets": "D", "subjects_sha256": "e", "recipe": "{}"}
    card = ModelCard(encoder_card(about, "n", "f"))
    assert (card.data.license, card.data.license_name) == ("other", "cc-by-nc-sa-4.0")
    assert licence in card.text


def test_failures_are_reported_and_the_exit_code_is_not_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume_file(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_text("nothing")
    words = [
        "pretrain",
        "prepare",
        str(tmp_path),
        "-o",
        str(tmp_path / "s"),
        "--size",
        "32",
        "--slices",
        "4",
    ]
    assert main([*words, "-np", "1"]) == 1
    said = capsys.readouterr()
    assert "1 volume made, 0 ready, 1 failed" in said.out
    assert "b_unknown: b.nii.gz is not a readable NIfTI file" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "braindino_tiny", "--store", "s", "-o", "r"], "Did you mean braindino_tiny_cpu"),
        (["run", "braindino_tiny_cpu", "--store", "s", "-o", "r"], "is not a slice store"),
        (
            ["run", "braindino_tiny_cpu", "--store", "s", "-o", "r", "optimiser.stps=1"],
            "optimiser.steps",
        ),
        (["export", "nowhere", "-o", "e.pth"], "no checkpoint in nowhere"),
        (["probe", "nowhere/e.pth"], "nothing to probe; give --table"),
    ],
)
def test_errors_are_one_message(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / "e.pth").touch()
    assert main(["pretrain", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_arguments_that_are_not_overrides_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["pretrain", "run", "r", "--store", ".", "-o", "o", "steps"], ["doctor", "a=b"]):
        assert main(words) == 2
        assert "unrecognized arguments" in capsys.readouterr().err


def test_help_works_without_the_extra_and_commands_name_it(tmp_path: Path) -> None:
    hidden = (
        "import sys; sys.modules['lightly'] = sys.modules['cv2'] = None; "
        "from nnunet_fm.cli.main import main; "
    )
    program = [sys.executable, "-W", "ignore", "-c"]
    done = subprocess.run(
        [*program, hidden + "main(['pretrain', '-h'])"], capture_output=True, text=True
    )
    assert "prepare" in done.stdout
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(small_recipe()))
    words = ["pretrain", "doctor", "--recipe", str(tmp_path / "r.yaml")]
    done = subprocess.run(
        [*program, hidden + f"sys.exit(main({words}))"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip install 'nnunet-fm[pretrain]'" in done.stderr


def test_doctor_looks_at_store_and_recipe(
    store: SliceStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text(
        yaml.safe_dump(small_recipe(views={"pairs": [{"global_size": 64, "local_size": 16}]}))
    )
    assert (
        main(
            [
                "pretrain",
                "doctor",
                "--store",
                str(store.folder),
                "--recipe",
                str(tmp_path / "r.yaml"),
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "12 volumes of 6 subjects, 96 slices of 32 px" in said
    assert "every volume has the manifest's checksum" in said
    assert "global crops of 64 px are stretched from slices of 32 px" in said
    assert main(["pretrain", "doctor", "--store", str(tmp_path)]) == 1


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["synthesize", "-o", "x"], "o", Path("x")),
        (["prepare", ".", "-o", "s", "--strip", "mask"], "skull_strip", "mask"),
        (["prepare", ".", "-o", "s", "--compact"], "uint8", True),
        (["run", "r", "--store", ".", "-o", "o", "--from", "."], "init_from", Path(".")),
        (["probe", __file__, "--strip", "mask"], "skull_strip", "mask"),
    ],
)
def test_spellings_of_version_0_1_are_accepted(words: list[str], name: str, value: object) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    assert getattr(parser.parse_args(words), name) == value
