"""`nnunet-fm demo`: from data made on the spot to Dice and a picture, through the commands that users type."""

import re
import shutil
import subprocess
import time
from pathlib import Path

from nnunet_fm.internal.errors import ExistingFileError, FailedRunError
from nnunet_fm.nnunet.commands import command, end_of, environment

DATASET, NAME = 999, "FMDemo"
CONFIGURATION, TRAINER, ENCODER = "2d_fm96", "FrozenDinoTrainerDemo", "synth_vitt16"
MARKER = ".nnunet-fm-demo"  # only a folder that carries it is cleared
TRAINING_CASES, TEST_CASES, EPOCHS = 20, 4, 12


def run_demo(out: Path, encoder: str | None = None) -> Path:
    """Make data, convert, plan, train, predict, evaluate and draw, in minutes on two cores.

    Args:
        out: folder for everything; a former demo in it is removed.
        encoder: weight file or card; the small encoder that comes with this package if None.

    Returns:
        The picture.

    Raises:
        FileExistsError: the folder holds something else.
        RuntimeError: a step failed; the message names its log.
    """
    from nnunet_fm.data.synthetic import write_brats
    from nnunet_fm.evaluation.labels import BRATS_REGIONS
    from nnunet_fm.evaluation.overlays import overlay_sheet

    started = time.monotonic()
    road = _Road(out)
    if encoder is None:
        print(
            f"No encoder given: {ENCODER}, pretrained on made brains. Give your own: nnunet-fm demo --encoder FILE"
        )
    road.say(f"making {TRAINING_CASES} training and {TEST_CASES} test cases (synthetic)")
    write_brats(out / "brats", TRAINING_CASES)
    write_brats(out / "test", TEST_CASES, first_seed=TRAINING_CASES, labelled=False)
    road.step(
        "converting to nnU-Net",
        "nnunet-fm",
        "convert",
        "brats",
        out / "brats",
        "-d",
        DATASET,
        "-n",
        NAME,
    )
    test = out / "imagesTs"
    _as_input(out / "test", test)
    road.step(
        "nnU-Net plans and preprocesses",
        *(
            "nnUNetv2_plan_and_preprocess",
            "-d",
            DATASET,
            "-c",
            "2d",
            "-np",
            2,
            "-npfp",
            2,
            "--verify_dataset_integrity",
        ),
    )
    chosen = ("--encoder", encoder or ENCODER, "--patch", 96, "-o", "FM_demo")
    road.step(
        "planning around the encoder", "nnunet-fm", "plan", "-d", DATASET, "-c", "2d", *chosen
    )
    who = ("-p", "FM_demo", "-tr", TRAINER)
    road.step("training", "nnUNetv2_train", DATASET, CONFIGURATION, 0, *who, "-device", _device())
    model = (
        "-d",
        DATASET,
        "-c",
        CONFIGURATION,
        "-f",
        0,
        *who,
        "-npp",
        1,
        "-nps",
        1,
        "-device",
        _device(),
    )
    road.step(
        "predicting the test cases",
        "nnunet-fm",
        "predict",
        "-i",
        test,
        "-o",
        out / "predictions",
        *model,
    )
    truth = out / "test" / "labels"
    road.step(
        "evaluating",
        *(
            "nnunet-fm",
            "evaluate",
            out / "predictions",
            truth,
            "--regions",
            "brats",
            "-o",
            out / "scores",
        ),
        show=True,
    )
    names = sorted(p.name.removesuffix(".nii.gz") for p in truth.glob("*.nii.gz"))
    picture = out / "overlays.png"
    overlay_sheet(
        [test / f"{n}_0003.nii.gz" for n in names],
        [truth / f"{n}.nii.gz" for n in names],
        [out / "predictions" / f"{n}.nii.gz" for n in names],
        BRATS_REGIONS,
        picture,
        f"{TRAINER}, synthetic cases",
    )
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes.")
    print(
        f"  picture      {picture}\n  scores       {out / 'scores'}\n  predictions  {out / 'predictions'}"
    )
    print(f"  model        {out / 'nnUNet_results'}\n  logs         {out / 'logs'}")
    return picture


class _Road:
    """Runs the steps one after the other, each with a log of its own."""

    def __init__(self, out: Path) -> None:
        if out.exists() and any(out.iterdir()):
            if not (out / MARKER).is_file():
                raise ExistingFileError(
                    f"{out} is not empty and no demo of ours; give another folder: -o FOLDER"
                )
            shutil.rmtree(out)
        (out / "logs").mkdir(parents=True)
        (out / MARKER).touch()
        self.logs, self.count = out / "logs", 0
        self.environment = environment() | {name: str(out / name) for name in _NNUNET_FOLDERS}
        self.environment |= {
            "nnUNet_n_proc_DA": "2",
            "nnUNet_def_n_proc": "2",
            "PYTHONUNBUFFERED": "1",
        }

    def say(self, what: str) -> None:
        self.count += 1
        print(f"[{self.count}] {what}", flush=True)

    def step(self, what: str, program: str, *arguments: object, show: bool = False) -> None:
        """Run one command; show its epochs as they come, and its output at the end if asked."""
        words = [program, *(str(a) for a in arguments)]
        self.say(f"{what}\n    $ {' '.join(words)}")
        log = self.logs / f"{self.count}_{program}.log"
        started = time.monotonic()
        program_line = command(words)
        with (
            log.open("w") as stream,
            subprocess.Popen(
                program_line,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.environment,
            ) as process,
        ):
            for line in process.stdout or ():
                stream.write(line)
                told = _told(line)
                if told:
                    print(f"    {told}", flush=True)
        if process.returncode:
            raise FailedRunError(f"`{' '.join(words)}` failed; {end_of(log)}")
        if show:
            print(log.read_text())
        print(f"    {time.monotonic() - started:.0f} s", flush=True)


_NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def _told(line: str) -> str:
    """What of a log line is shown: the encoder, the epochs, the Dice of each."""
    text = line.split(": ", 1)[-1].strip()
    if re.match(r"Epoch \d+$", text):
        return f"{text} of {EPOCHS - 1}"
    if "Pseudo dice" in text:
        regions = zip(
            ("WT", "TC", "ET"), re.findall(r"float32\(([\d.]+|nan)\)", text), strict=False
        )
        return "validation patches, Dice " + ", ".join(f"{name} {value}" for name, value in regions)
    return text if "tensor hash" in text else ""


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _as_input(source: Path, target: Path) -> None:
    """Test cases under the names that nnU-Net predicts from."""
    from nnunet_fm.data.brats import CHANNELS, find_cases

    target.mkdir(parents=True)
    for case in find_cases(source):
        for number, channel in enumerate(CHANNELS):
            if channel in case.files:
                shutil.copyfile(case.files[channel], target / f"{case.name}_{number:04d}.nii.gz")
