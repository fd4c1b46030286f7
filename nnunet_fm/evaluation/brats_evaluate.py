"""Lesion-wise scores by `brats-evaluate`, the tool of the BraTS challenges.

The tool is AGPL and pins old numpy, so it runs in an environment of its own. It exits with 0 and
omits cases if something is wrong, and it takes spacings in the wrong order (BraTS-evaluation 0.0.10
on panoptica 2.1.7), so inputs and outputs are checked here.
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

from nnunet_fm.data.grids import has_same_axes, read_grid, read_values, reorient
from nnunet_fm.evaluation.find_labels import OFFICIAL_SCHEMES, check_official
from nnunet_fm.evaluation.label_folders import LabelPair, check_places, find_pairs
from nnunet_fm.internal.errors import FailedRunError, InputError, MissingFileError
from nnunet_fm.internal.messages import some, unknown

TOOL = "brats-evaluate"
ENDING = ".nii.gz"
INSTALL = (
    "python3 -m venv brats && brats/bin/pip install BraTS-evaluation, "
    f"then --official-tool brats/bin/{TOOL}"
)


@dataclass(frozen=True)
class OfficialScore:
    """Scores of one region of one case under the names that the tool gives them.

    Attributes:
        case: name of the case.
        region: name of the region.
        n_ref_instances: number of true lesions.
        n_pred_instances: number of predicted lesions.
        tp: matched lesions.
        fp: false lesions.
        fn: missed lesions.
        sq_dsc: mean Dice of the matched lesions; NaN without any.
        sq_hd95: mean HD95 of the matched lesions, mm; NaN without any.
        sq_nsd: mean surface Dice of the matched lesions; NaN without any.
        pq_dsc: sq_dsc times the F1 of the detection: missed and false lesions count.
        global_bin_dsc: Dice of the whole region.
        global_bin_hd95: HD95 of the whole region, mm; infinite where one mask is empty.
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
    predictions: Path,
    truths: Path,
    challenge: str,
    tool: str | None = None,
    ignore_origin: bool = False,
    scheme: str | None = None,
    workers: int = 2,
) -> list[OfficialScore]:
    """Score a folder of predictions with the challenge's own tool.

    Args:
        predictions: folder with `CASE.nii.gz`.
        truths: folder with `CASE.nii.gz`, 1 mm isotropic, with the labels of the challenge.
        challenge: `gli`, `mets`, `ped`, `MenRT`, `MenPre` or `GoAT`.
        tool: path of `brats-evaluate`; if None, it is searched on the PATH.
        ignore_origin: compare images of one grid even where their origins differ.
        scheme: name of the label scheme of the truth; if None, see `check_official`.
        workers: number of threads that read labels.

    Raises:
        FileNotFoundError: the tool (the message says how to install it) or a prediction is missing.
        ValueError: unknown challenge, labels that mean something else in it, voxels that are not
            1 mm, or a prediction that lies elsewhere than its truth.
        RuntimeError: the tool omitted cases.
    """
    if challenge not in OFFICIAL_SCHEMES:
        raise InputError(unknown("challenge", challenge, OFFICIAL_SCHEMES))
    program = shutil.which(tool or TOOL)
    if program is None:
        raise MissingFileError(f"no {tool or TOOL} found; type: {INSTALL}")
    pairs = find_pairs(predictions, truths, ENDING)
    cases = [pair.case for pair in pairs]
    missing = [pair.case for pair in pairs if not pair.prediction.is_file()]
    if missing:
        raise MissingFileError(f"{predictions} has no prediction of {some(missing)}")
    _check_spacing(pairs)
    check_official(truths, challenge, ENDING, scheme, workers)
    check_places(pairs, ignore_origin)
    results = _run_tool(Path(program).absolute(), pairs, challenge)
    omitted = [case for case in cases if case not in results]
    if omitted:
        raise FailedRunError(
            f"{program} omitted {some(omitted)}; are the shapes and labels those of {challenge}?"
        )
    return [
        _score(case, region, values) for case in cases for region, values in results[case].items()
    ]


def _check_spacing(pairs: Sequence[LabelPair]) -> None:
    for pair in pairs:
        spacing = read_grid(pair.truth).spacing
        if any(abs(s - 1) > 1e-3 for s in spacing):
            raise InputError(
                f"{pair.case} has voxels of {spacing} mm; the tool computes correct distances only "
                "for 1 mm isotropic images. Omit --official: nnunet-fm's own metrics are correct "
                "for any spacing"
            )


def _run_tool(
    program: Path, pairs: Sequence[LabelPair], challenge: str
) -> dict[str, dict[str, Any]]:
    """Run the tool and return its results by case.

    The tool recognises cases by the numbers in their file names, so links with numbers are made.
    """
    numbered = {f"case-{n:05d}-000{ENDING}": pair for n, pair in enumerate(pairs)}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("truth", "predictions"):
            (folder / kind).mkdir()
        for file, pair in numbered.items():
            os.symlink(pair.truth.absolute(), folder / "truth" / file)
            provide_prediction(pair, folder / "predictions" / file)
        summary = folder / "summary.json"
        command = [str(program), "--config", challenge, "--ref_path", "truth"]
        command += ["--pred_path", "predictions", "--summary_json", summary.name]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, errors="ignore")
        if not summary.is_file():
            output = (done.stdout + done.stderr)[-2000:]
            raise FailedRunError(f"{program} wrote no results; its output ends with: {output}")
        results = json.loads(summary.read_text())["metrics"]
    by_case = {}
    for result in results:
        if "error" not in result:
            case = numbered[Path(result["subject_name"]).name].case
            by_case[case] = {k: v for k, v in result.items() if isinstance(v, dict)}
    return by_case


def provide_prediction(pair: LabelPair, target: Path) -> None:
    """Link a prediction, or write it with its axes as those of the truth: the tool ignores them."""
    stored = read_grid(pair.prediction)
    wanted = read_grid(pair.truth)
    if has_same_axes(stored, wanted):
        os.symlink(pair.prediction.absolute(), target)
        return
    image = sitk.GetImageFromArray(reorient(read_values(pair.prediction), stored, wanted))
    sitk.WriteImage(image, str(target))


def _score(case: str, region: str, values: dict[str, Any]) -> OfficialScore:
    """Convert the results of one region; a number that the tool omits is undefined."""
    counts: dict[str, Any] = {}
    for key in ("n_ref_instances", "n_pred_instances", "tp", "fp", "fn"):
        counts[key] = int(values.get(key) or 0)
    numbers: dict[str, Any] = {}
    for key in ("sq_dsc", "sq_hd95", "sq_nsd", "pq_dsc", "global_bin_dsc", "global_bin_hd95"):
        number = values.get(key)
        numbers[key] = float("nan") if number is None else float(number)
    return OfficialScore(case, region, **counts, **numbers)
