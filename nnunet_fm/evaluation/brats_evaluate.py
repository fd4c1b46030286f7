"""The challenges' own lesion-wise tool, `brats-evaluate`, in an environment of its own: it is AGPL and pins old numpy.

It answers 0 and leaves cases out where something is wrong, and takes spacings in the wrong order
(BraTS-evaluation 0.0.10 on panoptica 2.1.7); so everything is checked here before and after.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import SimpleITK as sitk

from nnunet_fm.evaluation.segmentation import cases_of
from nnunet_fm.internal.errors import FailedRunError, InputError, MissingFileError
from nnunet_fm.internal.messages import some, unknown

TOOL, ENDING = "brats-evaluate", ".nii.gz"
CHALLENGES = ("gli", "mets", "ped", "MenRT", "MenPre", "GoAT")
INSTALL = f"python3 -m venv brats && brats/bin/pip install BraTS-evaluation, then --official-tool brats/bin/{TOOL}"


@dataclass(frozen=True)
class OfficialScore:
    """One region of one case, in the tool's own words.

    Attributes:
        case, region: which.
        n_ref_instances, n_pred_instances, tp, fp, fn: lesions.
        sq_dsc, sq_nsd: mean Dice and surface Dice of the matched lesions only; NaN without any.
        sq_hd95: mean HD95 of the matched lesions, mm.
        pq_dsc: sq_dsc times the F1 of the detection: missed and false lesions count.
        global_bin_dsc, global_bin_hd95: of the whole region; infinite HD95 where one mask is empty.
    """

    case: str
    region: str
    n_ref_instances: int
    n_pred_instances: int
    tp: int
    fp: int
    fn: int
    sq_dsc: float
    sq_hd95: float
    sq_nsd: float
    pq_dsc: float
    global_bin_dsc: float
    global_bin_hd95: float


def official_scores(
    predictions: Path, truths: Path, challenge: str, tool: str | None = None
) -> list[OfficialScore]:
    """Score a folder with the challenge's own tool.

    Args:
        predictions: folder with `CASE.nii.gz`.
        truths: folder with `CASE.nii.gz`, 1 mm isotropic, labels as the challenge has them.
        challenge: `gli`, `mets`, `ped`, `MenRT`, `MenPre` or `GoAT`.
        tool: path of `brats-evaluate`; looked for on the path if None.

    Raises:
        FileNotFoundError: no tool (the message says how to get it), or a missing prediction.
        ValueError: unknown challenge, other voxels than 1 mm.
        RuntimeError: the tool left cases out.
    """
    if challenge not in CHALLENGES:
        raise InputError(unknown("challenge", challenge, CHALLENGES))
    program = shutil.which(tool or TOOL)
    if program is None:
        raise MissingFileError(f"no {tool or TOOL} found; type: {INSTALL}")
    cases = cases_of(truths, ENDING)
    if missing := [c for c in cases if not (predictions / f"{c}{ENDING}").is_file()]:
        raise MissingFileError(f"{predictions} has no prediction of {some(missing)}")
    _check_spacing(cases, truths)
    found = _run(Path(program).absolute(), cases, predictions, truths, challenge)
    if absent := [c for c in cases if c not in found]:
        raise FailedRunError(
            f"{program} left out {some(absent)}; are the shapes and labels those of {challenge}?"
        )
    return [
        _score(case, region, values) for case in cases for region, values in found[case].items()
    ]


def _check_spacing(cases: Sequence[str], truths: Path) -> None:
    for case in cases:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(truths / f"{case}{ENDING}"))
        reader.ReadImageInformation()
        if any(abs(s - 1) > 1e-3 for s in reader.GetSpacing()):
            raise InputError(
                f"{case} has voxels of {reader.GetSpacing()} mm; the tool's distances are right for 1 mm isotropic "
                "images only. Leave --official out: nnunet-fm's own metrics hold for any spacing"
            )


def _run(
    program: Path, cases: Sequence[str], predictions: Path, truths: Path, challenge: str
) -> dict[str, dict[str, Any]]:
    """The tool's results by case; it recognises cases by numbers, so they get some."""
    with TemporaryDirectory() as name:
        folders = [Path(name) / "truth", Path(name) / "predictions"]
        numbered = {f"case-{n:05d}-000{ENDING}": case for n, case in enumerate(cases)}
        for folder, source in zip(folders, (truths, predictions), strict=True):
            folder.mkdir()
            for file, case in numbered.items():
                os.symlink((source / f"{case}{ENDING}").absolute(), folder / file)
        summary = Path(name) / "summary.json"
        words = f"--config {challenge} --ref_path truth --pred_path predictions --summary_json {summary.name}".split()
        done = subprocess.run(
            [program, *words], cwd=name, capture_output=True, text=True, errors="ignore"
        )
        if not summary.is_file():
            raise FailedRunError(
                f"{program} wrote nothing; it said: {(done.stdout + done.stderr)[-2000:]}"
            )
        results = json.loads(summary.read_text())["metrics"]
    return {
        numbered[Path(r["subject_name"]).name]: {k: v for k, v in r.items() if isinstance(v, dict)}
        for r in results
        if "error" not in r
    }


def _score(case: str, region: str, values: dict[str, Any]) -> OfficialScore:
    """Keys that the tool leaves out are undefined."""
    counts: dict[str, Any] = {
        k: int(values.get(k) or 0)
        for k in ("n_ref_instances", "n_pred_instances", "tp", "fp", "fn")
    }
    names = ("sq_dsc", "sq_hd95", "sq_nsd", "pq_dsc", "global_bin_dsc", "global_bin_hd95")
    numbers: dict[str, Any] = {
        k: float("nan") if values.get(k) is None else float(values[k]) for k in names
    }
    return OfficialScore(case, region, **counts, **numbers)
