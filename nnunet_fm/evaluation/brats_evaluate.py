"""Lesion-wise scores by `brats-evaluate`, the tool of the BraTS challenges.

The tool is AGPL and pins old numpy, so it runs in an environment of its own. It exits with 0 and
omits cases if something is wrong, and it takes spacings in the wrong order (BraTS-evaluation 0.0.10
on panoptica 2.1.7), so inputs and outputs are checked here. It gets whole labels on one grid.
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_fm.data.grids import read_grid
from nnunet_fm.data.image_files import write_compressed
from nnunet_fm.data.image_size import UnreadableImageError
from nnunet_fm.data.label_images import Labels, foreground
from nnunet_fm.evaluation.find_labels import OFFICIAL_SCHEMES, check_official
from nnunet_fm.evaluation.label_folders import LabelPair
from nnunet_fm.evaluation.labels import LabelScheme
from nnunet_fm.internal.errors import FailedRunError, InputError, MissingFileError
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.internal.messages import some, unknown
from nnunet_fm.internal.programs import run_program

TOOL = "brats-evaluate"
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
        global_bin_hd95: HD95 of the whole region, mm; infinite where the masks share no voxel. It
            is one percentile over both directions, so at most `hd95_mm` of `scores.csv`.
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
    pairs: Sequence[LabelPair],
    labels: LabelScheme,
    challenge: str,
    tool: str | None = None,
    scheme: str | None = None,
    workers: int = 2,
    problems: dict[str, str] | None = None,
) -> list[OfficialScore]:
    """Score predictions with the challenge's own tool.

    Args:
        pairs: truths, 1 mm isotropic, and predictions that lie where they do (`check_places`).
        labels: names every label that may occur.
        challenge: `gli`, `mets`, `ped`, `MenRT`, `MenPre` or `GoAT`.
        tool: path of `brats-evaluate`; if None, it is searched on the PATH.
        scheme: name of the label scheme of the truth; if None, see `check_official`.
        workers: number of threads that read labels.
        problems: receives what is wrong with each case whose files cannot be read; if None, the
            first one is an error.

    Raises:
        FileNotFoundError: the tool (the message says how to install it) or a prediction is missing.
        ValueError: unknown challenge, labels that mean something else in it, or voxels that are not
            1 mm.
        RuntimeError: the tool omitted cases.
    """
    if challenge not in OFFICIAL_SCHEMES:
        raise InputError(unknown("challenge", challenge, OFFICIAL_SCHEMES))
    program = shutil.which(tool or TOOL)
    if program is None:
        raise MissingFileError(f"no {tool or TOOL} found; type: {INSTALL}")
    missing = [pair.case for pair in pairs if not pair.prediction.is_file()]
    if missing:
        raise MissingFileError(f"{pairs[0].prediction.parent} has no prediction of {some(missing)}")
    _check_spacing(pairs)
    with TemporaryDirectory() as name:
        folder = Path(name)
        numbered = _write_files(pairs, labels, challenge, scheme, folder, workers, problems)
        results = _run_tool(Path(program).absolute(), challenge, folder, numbered)
    cases = list(numbered.values())
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


def _write_files(
    pairs: Sequence[LabelPair],
    labels: LabelScheme,
    challenge: str,
    scheme: str | None,
    folder: Path,
    workers: int,
    problems: dict[str, str] | None,
) -> dict[str, str]:
    """Write the files that the tool reads, and check that it understands their labels.

    Returns:
        Case of each file name: the tool recognises cases by the numbers in them.
    """
    for kind in ("truth", "predictions"):
        (folder / kind).mkdir()
    names = [f"case-{n:05d}-000.nii.gz" for n in range(len(pairs))]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        writing = [
            pool.submit(write_pair, pair, labels, folder, name)
            for pair, name in zip(pairs, names, strict=True)
        ]
    truths: dict[str, frozenset[int]] = {}
    predictions: dict[str, frozenset[int]] = {}
    numbered = {}
    for pair, name, written in zip(pairs, names, writing, strict=True):
        try:
            truths[pair.case], predictions[pair.case] = written.result()
            numbered[name] = pair.case
        except UnreadableImageError as error:
            if problems is None:
                raise
            problems[pair.case] = str(error)
    if not numbered and problems:
        raise UnreadableImageError(next(iter(problems.values())))
    check_official(truths, predictions, challenge, scheme)
    return numbered


def write_pair(
    pair: LabelPair, labels: LabelScheme, folder: Path, name: str
) -> tuple[frozenset[int], frozenset[int]]:
    """Write a truth and its prediction as whole numbers on one grid: the tool checks neither.

    Args:
        pair: the two files.
        labels: names every label that may occur.
        folder: folder with `truth` and `predictions`.
        name: name of both files.

    Returns:
        The labels in the truth and in the prediction, without 0.
    """
    image, predicted = pair.read(labels)
    if predicted is None:
        raise MissingFileError(f"{pair.prediction} does not exist")
    _write(image.labels, folder / "truth" / name)
    _write(predicted, folder / "predictions" / name)
    return foreground(image.labels), foreground(predicted)


def _write(labels: Labels, file: Path) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels, np.uint8))
    write_compressed(image, file)


def _run_tool(
    program: Path, challenge: str, folder: Path, numbered: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Run the tool on the files of a folder and return its results by case."""
    summary = folder / "summary.json"
    command = [str(program), "--config", challenge, "--ref_path", "truth"]
    command += ["--pred_path", "predictions", "--summary_json", summary.name]
    done = run_program(command, cwd=folder, capture_output=True)
    if not summary.is_file():
        output = (done.stdout + done.stderr)[-2000:]
        raise FailedRunError(f"{program} wrote no results; its output ends with: {output}")
    by_case = {}
    for result in read_object(summary)["metrics"]:
        if "error" not in result:
            case = numbered[Path(result["subject_name"]).name]
            by_case[case] = {k: v for k, v in result.items() if isinstance(v, dict)}
    return by_case


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
