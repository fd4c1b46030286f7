"""Features of whole visits: several sequences go through an encoder together."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.tables import write_lines, write_volume_file
from nnunet_fm.cli.main import main
from nnunet_fm.data.perturbations import Perturbation
from nnunet_fm.data.preprocessing import crop_to_brains, resize_brain
from nnunet_fm.data.volumes import read_volume
from nnunet_fm.encoders import Encoder, FeatureInfo, InputSpec
from nnunet_fm.encoders.slicewise import to_slabs, to_slices
from nnunet_fm.features import FeatureCache, FeatureRecipe, Table, read_table
from nnunet_fm.features.extraction import ExtractedVolume, extract
from nnunet_fm.features.opening import open_encoder
from nnunet_fm.features.volume_loader import VolumeRef, iter_preprocessed

SHAPE = (8, 16, 24)


class Slices(Encoder):
    """Two images of a slice, as their means and deviations."""

    kind = "tokens"

    def __init__(self, taps: Sequence[int] | None = None) -> None:
        super().__init__()
        self.in_channels = 2
        self.input_spec = InputSpec(2, 8, (16, 24))
        self.feature_info = [FeatureInfo(4, 8, "whole")]

    def features(self, x: Tensor) -> list[Tensor]:
        """Return one token for each patch."""
        return [x.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).mean(4)]

    def embed(self, x: Tensor) -> Tensor:
        """Return the mean and the deviation of each channel."""
        voxels = x.flatten(2)
        return torch.cat([voxels.mean(2), voxels.std(2)], 1)


def open_visits(encoder: str, columns: tuple[str, ...], **more: Any) -> tuple[Encoder, Any]:
    return open_encoder(encoder, shape=SHAPE, precision="float32", visit=columns, **more)


def extracted(
    table: Table, cache: FeatureCache, encoder: str, **more: Any
) -> tuple[Encoder, FeatureRecipe, list[ExtractedVolume]]:
    module, recipe = open_visits(encoder, table.modalities, **more)
    return module, recipe, extract(table, module, recipe, cache, processes=0)


def preprocessed(table: Table, row: int, columns: list[str]) -> Tensor:
    """The volumes of a visit in one box, as channels."""
    read = [read_volume(table.rows[row].volumes[column])[0] for column in columns]
    boxes = crop_to_brains(read, [volume != 0 for volume in read])
    return torch.stack([torch.from_numpy(resize_brain(box, SHAPE)) for box in boxes]).half().float()


def test_sequences_go_through_the_encoder_together(table_file: Path, tmp_path: Path) -> None:
    table, cache = read_table(table_file), FeatureCache(tmp_path / "cache")
    encoder, recipe, outcomes = extracted(table, cache, "brainfm_test8")
    assert recipe.channels == ("T1", "T1c", "T2", "FLAIR")
    assert [(o.modality, o.reason) for o in outcomes] == [("T1", "")] + 3 * [("T1+FLAIR", "")]
    names, matrix = cache.matrix(table)
    assert names == [row.name for row in table.rows]
    for row, columns in ((0, ["T1"]), (2, ["T1", "FLAIR"])):
        x = torch.zeros(1, 4, *SHAPE)
        found = preprocessed(table, row, columns)
        x[0, [0, 3][: len(columns)]] = found
        expected = encoder.embed(x)[0].detach()
        torch.testing.assert_close(torch.from_numpy(matrix[row]), expected, rtol=1e-4, atol=1e-5)


def test_slices_with_neighbours(table_file: Path, tmp_path: Path) -> None:
    table, cache = read_table(table_file), FeatureCache(tmp_path / "cache")
    options = {"sequences": ["FLAIR", "T1"], "slices": 3}
    encoder, recipe = open_encoder(
        "brainfound_test14",
        shape=(8, 28, 28),
        precision="float32",
        options=options,
        visit=("T1", "FLAIR"),
    )
    outcomes = extract(table, encoder, recipe, cache, processes=0)
    assert [o.reason for o in outcomes] == ["the visit has no FLAIR", "", "", ""]
    assert [o.key == "" for o in outcomes] == [True, False, False, False]
    volumes = [read_volume(table.rows[1].volumes[name])[0] for name in ("FLAIR", "T1")]
    boxes = crop_to_brains(volumes, [volume != 0 for volume in volumes])
    x = torch.stack([torch.from_numpy(resize_brain(box, (8, 28, 28))) for box in boxes])
    slabs = to_slices(to_slabs(x.half().float()[None], 3))
    with torch.no_grad():
        expected = encoder.embed(slabs).mean(0)
    with pytest.raises(ValueError, match=r"1 visit .* needs: Sübject 0 \(FLAIR\); remove the rows"):
        cache.matrix(table)
    _, matrix = cache.matrix(replace(table, rows=table.rows[1:]))
    torch.testing.assert_close(torch.from_numpy(matrix[0]), expected, rtol=1e-3, atol=1e-4)


def test_an_encoder_without_names_takes_the_columns_in_order(
    table_file: Path, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    table = read_table(table_file, ["FLAIR", "T1"])
    table = replace(table, rows=table.rows[1:])
    _, recipe, _ = extracted(table, cache, f"{__name__}.Slices")
    assert recipe.channels == ("FLAIR", "T1")
    _, matrix = cache.matrix(table)
    x = to_slices(preprocessed(table, 0, ["FLAIR", "T1"])[None])
    expected = Slices().embed(x).mean(0)
    torch.testing.assert_close(torch.from_numpy(matrix[0]), expected, rtol=1e-4, atol=1e-5)
    other = open_visits(f"{__name__}.Slices", ("T1", "FLAIR"))[1]
    assert other.identity() != recipe.identity()


def test_the_key_depends_on_the_sequences_that_are_there(table_file: Path, tmp_path: Path) -> None:
    table, cache = read_table(table_file), FeatureCache(tmp_path / "cache")
    recipe, row = open_visits("brainfm_test8", table.modalities)[1], table.rows[1]
    swapped = replace(row, volumes={"T1": row.volumes["FLAIR"], "FLAIR": row.volumes["T1"]})
    keys = {
        cache.key_of(recipe, row, ("T1", "FLAIR")),
        cache.key_of(recipe, row, ("T1",)),
        cache.key_of(recipe, row, ("FLAIR",)),
        cache.key_of(recipe, swapped, ("T1", "FLAIR")),
    }
    assert len(keys) == 4
    assert cache.key_of(recipe, row, ("FLAIR", "T1")) in keys


def test_volumes_on_other_grids_are_reported(tmp_path: Path) -> None:
    write_volume_file(tmp_path / "t1.nii.gz", 0)
    write_volume_file(tmp_path / "flair.nii.gz", 1)
    moved = nib.load(tmp_path / "flair.nii.gz")
    affine = moved.affine.copy()
    affine[0, 3] = 7
    nib.save(nib.Nifti1Image(np.asarray(moved.dataobj), affine), tmp_path / "flair.nii.gz")
    table = read_table(write_lines(tmp_path, ["a,t1.nii.gz,flair.nii.gz"], "subject_id,T1,FLAIR"))
    _, _, (outcome,) = extracted(table, FeatureCache(tmp_path / "cache"), "brainfm_test8")
    assert "lie in different places" in outcome.reason


def test_a_failure_names_the_sequence(table_file: Path, tmp_path: Path) -> None:
    table = read_table(table_file)
    table.rows[1].volumes["FLAIR"].write_bytes(b"nothing")
    _, _, outcomes = extracted(table, FeatureCache(tmp_path / "cache"), "brainfm_test8")
    assert [bool(o.reason) for o in outcomes] == [False, True, False, False]
    assert outcomes[1].reason.startswith("FLAIR: ")


def test_a_visit_has_one_bias_field(table_file: Path) -> None:
    """The perturbation is seeded by the first volume, whatever the others are."""
    row, columns = read_table(table_file).rows[1], ("T1", "FLAIR")
    change = Perturbation("bias", 0.5)
    recipe = open_visits("brainfm_test8", columns, perturbation=change)[1]
    found = []
    for first in columns:  # FLAIR is T1's volume in both
        volumes = {"T1": row.volumes[first], "FLAIR": row.volumes["T1"]}
        visit = VolumeRef(replace(row, volumes=volumes), columns)
        ((_, channels),) = iter_preprocessed({"key": visit}, recipe, 0)
        found.append(channels[3])
    assert not np.array_equal(*found)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("T1", "FLAIR", "ADC"), "takes T1, T1c, T2, FLAIR, .*T1, FLAIR, ADC; .*, e.g. T1,FLAIR"),
        (("T1", "t1w"), "T1 and t1w are the same sequence"),
    ],
)
def test_columns_that_no_channel_takes_are_not_ignored_in_reading(
    table_file: Path, tmp_path: Path, columns: tuple[str, ...], message: str
) -> None:
    table, cache = read_table(table_file), FeatureCache(tmp_path / "cache")
    module, recipe, _ = extracted(table, cache, "brainfm_test8")
    with pytest.raises(ValueError, match=message):
        cache.sources(columns, recipe)
    with pytest.raises(ValueError, match=message):
        extract(replace(table, modalities=columns), module, recipe, cache, processes=0)
    extra = table.rows[1].volumes | {columns[-1]: table.rows[1].volumes["T1"]}
    rows = [replace(table.rows[1], volumes=extra)]
    with pytest.raises(ValueError, match=message):
        cache.matrix(replace(table, rows=rows, modalities=columns))


def test_nothing_in_use_is_garbage(table_file: Path, tmp_path: Path) -> None:
    table, cache = read_table(table_file), FeatureCache(tmp_path / "cache")
    _, recipe, _ = extracted(table, cache, "brainfm_test8")
    extracted(replace(table, modalities=("FLAIR",)), cache, "brainfm_test8")
    assert len(cache.entries(recipe)) == 4 + 3
    assert not cache.garbage(cache.keys_of([table]))
    rest = cache.garbage(cache.keys_of([replace(table, rows=table.rows[:2])]))
    assert len(rest) == 2 * 2  # two visits, with T1 and without
    many = replace(table.rows[1], volumes={f"x{n}": Path() for n in range(30)})
    assert cache.keys_of([replace(table, rows=[many])])[recipe.identity()] == set()


def test_the_order_that_was_asked_for_is_that_of_the_channels(
    table_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["features", "extract", str(table_file), "--cache", str(tmp_path / "cache")]
    words += ["--encoder", f"{__name__}.Slices", "--together", "--shape", *map(str, SHAPE)]
    assert main([*words, "-np", "0", "--modalities", "FLAIR,T1"]) == 1  # a visit lacks FLAIR
    assert "channels: FLAIR, T1" in capsys.readouterr().out
    assert FeatureCache(tmp_path / "cache").recipe().channels == ("FLAIR", "T1")


def test_processes_and_a_spacing(table_file: Path, tmp_path: Path) -> None:
    table, found = read_table(table_file), []
    for processes in (0, 1):
        cache = FeatureCache(tmp_path / f"cache{processes}")
        module, recipe = open_encoder(
            "brainfm_test8", shape=(16, 24, 24), spacing=(2.0, 1.0, 1.0), visit=table.modalities
        )
        outcomes = extract(table, module, recipe, cache, processes=processes)
        assert all(not o.reason for o in outcomes)
        found.append(cache.matrix(table)[1])
    assert np.array_equal(*found)


@pytest.mark.parametrize(
    ("encoder", "columns", "message"),
    [
        (
            "brainfm_test8",
            ("T1", "t1w"),
            "T1 and t1w are the same sequence, T1; allowed: one of .* T1$",
        ),
        ("brainfm_test8", ("T1", "ADC"), "takes T1, T1c, T2, FLAIR, .*T1, ADC; .*those, e.g. T1$"),
        ("brainfm_test8", ("ADC",), "takes T1, T1c, T2, FLAIR, .* ADC; .*modalities of those$"),
        ("brainfound_test14", ("T1", "T2"), r"needs FLAIR, .*modalities='\[\"T1\", \"T2\"\]'"),
        ("dinov3_test16", ("T1", "T2"), "takes 3 images at once, .* 2 columns of volumes, T1, T2"),
        ("volta3d_test8", ("T1",), "takes one image at once; remove --together"),
    ],
)
def test_columns_that_do_not_fit(encoder: str, columns: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_visits(encoder, columns)


def test_the_command_line_and_heads(table_file: Path, tmp_path: Path, run: Any) -> None:
    cache = tmp_path / "cache"
    words = ["features", "extract", table_file, "--encoder", "brainfm_test8", "--cache", cache]
    words += ["--shape", *SHAPE, "-np", 0]
    assert "or --together in" in run("nnunet-fm", *words, expect=2).stdout
    assert "4 visits extracted" in run("nnunet-fm", *words, "--together").stdout
    listed = run("nnunet-fm", "features", "list", "--cache", cache).stdout.splitlines()
    assert listed[1].split()[-2:] == ["4", "T1+T1c+T2+FLAIR"]
    kept = FeatureCache(cache)
    table = read_table(table_file)
    assert len(kept.keys_of([table])[kept.recipe().identity()]) == 1 + 3 * 3
    with pytest.raises(ValueError, match="one vector for all volumes of a visit"):
        kept.matrix(table, fusion="concat")
    with pytest.raises(FileNotFoundError, match=r"--together --modalities FLAIR$"):
        kept.matrix(table, modalities=["FLAIR"])
    task = ["heads", "run", "brain_age", "models=[trivial]", "seeds=1", "folds=2", "ratios=[1.0]"]
    task += ["complete=false", "--table", table_file, "--cache", cache, "-o", tmp_path / "heads"]
    assert "4 cases of 4 subjects" in run("nnunet-fm", *task).stdout
    task[2] = "mri_sequence"
    assert "allowed: unit=visit, or features of single" in run("nnunet-fm", *task, expect=2).stdout
