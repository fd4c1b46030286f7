"""`heads finetune --together`: the sequences of a visit go through the encoder together."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from helpers.tables import write_lines
from nnunet_fm import heads
from nnunet_fm.cli.main import main
from nnunet_fm.features.opening import open_encoder

SIDE = 16


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen visits; FLAIR of class `b` has a bright half, the last has T1 alone."""
    folder, rng, lines = tmp_path_factory.mktemp("visits"), np.random.default_rng(0), []
    for subject in range(16):
        for sequence in ("T1", "FLAIR"):
            values = 50 + 5 * rng.standard_normal((18, 20, 22))
            if subject % 2 and sequence == "FLAIR":
                values[:, :, 11:] += 60
            image = nib.Nifti1Image(values.astype(np.float32), np.eye(4))
            nib.save(image, folder / f"{subject}{sequence}.nii.gz")
        flair = f"{subject}FLAIR.nii.gz" if subject < 15 else ""
        lines.append(f"s{subject},{subject}T1.nii.gz,{flair},{'ab'[subject % 2]}")
    return write_lines(folder, lines, "subject_id,T1,FLAIR,label")


def test_what_one_sequence_shows_is_learned_from_visits(table: Path, tmp_path: Path) -> None:
    keys = ["classification", "target=label", "folds=2", "ratios=[1.0]", "seeds=1"]
    keys += ["finetune.unfreeze=all", "finetune.epochs=16", "finetune.batch_size=4"]
    keys += ["finetune.learning_rate=0.01", "finetune.validation=0"]
    words = ["heads", "finetune", *keys, "--encoder", "brainfm_test8", "--table", str(table)]
    words += ["--cache", str(tmp_path / "cache"), "--shape", *3 * (str(SIDE),), "-np", "0"]
    words += ["-o", str(tmp_path / "heads"), "--together"]
    assert main(words) == 0
    (results,) = (tmp_path / "heads").glob("*/*/*/results.csv")
    auc = {r.model: r.value for r in heads.read_run(results.parent).results if r.metric == "AUC"}
    assert auc["finetuned"] > 0.85


def test_a_visit_without_a_sequence_that_is_needed(table: Path, tmp_path: Path) -> None:
    keys = ["target=label", "folds=2", "complete=false"]
    inputs = heads.open_task("classification", table, tmp_path, keys, kind=heads.FineTuneTask)
    brainfm = open_encoder("brainfm_test8", shape=(SIDE,) * 3, visit=("T1", "FLAIR"))
    assert len(heads.finetune_data(inputs, *brainfm, tmp_path, processes=0).names) == 16
    options = {"sequences": ["T1", "FLAIR"]}
    slices = open_encoder(
        "brainfound_test14", shape=(SIDE, 28, 28), options=options, visit=("T1", "FLAIR")
    )
    with pytest.raises(ValueError, match=r"1 visit .* needs: s15 \(FLAIR\); .*complete=true"):
        heads.finetune_data(inputs, *slices, tmp_path, processes=0)
    complete = heads.open_task("classification", table, tmp_path, keys[:2], kind=heads.FineTuneTask)
    data = heads.finetune_data(complete, *slices, tmp_path, processes=0)
    assert len(data.names) == 15
    fitted = data.fit("finetuned", np.arange(15), 0)
    assert fitted.predict(data.x).shape == (15, 2)
