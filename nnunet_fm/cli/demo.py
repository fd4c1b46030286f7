"""`nnunet-fm demo`: from synthetic data to Dice and a picture, through the commands users type."""

import argparse
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from nnunet_fm.cli.parser import Commands, add_card, add_encoder_option
from nnunet_fm.internal import option_types
from nnunet_fm.internal.arguments import parse_key_values
from nnunet_fm.internal.errors import ExistingFileError, FailedRunError, InputError
from nnunet_fm.internal.locks import one_writer
from nnunet_fm.internal.messages import some
from nnunet_fm.internal.programs import ending_with_us
from nnunet_fm.nnunet.commands import command, environment, log_tail
from nnunet_fm.nnunet.datasets import FOLDERS

DATASET, NAME = 999, "FMDemo"
SCHEME = "gli2023"  # of the labels
CONFIGURATION, TRAINER, ENCODER = "2d_fm96", "FrozenDinoTrainerDemo", "synth_vitt16"
PLANS = "FM_demo"
OURS = ".nnunet-fm"  # how the names of markers and locks begin
MARKER = f"{OURS}-demo"  # only a folder that holds it is cleared
OUTPUTS = ("logs", "brats", "test", "imagesTs", "predictions", "scores", "overlays.png")
TRAINING_CASES, TEST_CASES, EPOCHS = 20, 4, 12
REGIONS = ("WT", "TC", "ET")
FLAIR = 3  # number of the channel that is drawn


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm demo`."""
    demo = commands.add_parser("demo", help="from synthetic data to Dice and a picture, in minutes")
    demo.add_argument(
        "-o",
        type=option_types.output_folder,
        default=Path("demo"),
        help="folder for everything (default: demo)",
    )
    demo.add_argument(
        "--encoder",
        type=option_types.encoder,
        metavar="FILE",
        help=f"weight file (default: the bundled {ENCODER})",
    )
    add_card(demo)
    add_encoder_option(demo, "qkv_bias=true")
    demo.set_defaults(function=_demo)


def _demo(parsed: argparse.Namespace) -> None:
    run_demo(parsed.o.absolute(), parsed.encoder, parsed.card, parsed.encoder_options)


def run_demo(
    out: Path,
    encoder: str | None = None,
    card: str | None = None,
    options: Sequence[str] = (),
) -> Path:
    """Make data, convert, plan, train, predict, evaluate and draw, in minutes on two cores.

    Args:
        out: folder for everything; an earlier demo in it is removed.
        encoder: weight file or name, as in `nnunet-fm plan`; the small bundled encoder if None.
        card: weight card of the file, if the file does not identify itself.
        options: `KEY=VALUE` options of the encoder's architecture.

    Returns:
        The picture.

    Raises:
        MissingFileError, CheckpointError, InputError: the encoder cannot be used; nothing is made.
        FileExistsError: the folder holds something else.
        BusyError: another demo is being made in it.
        RuntimeError: a step failed; the message names its log.
    """
    started = time.monotonic()
    if encoder is None and (card is not None or options):
        raise InputError("--card and --encoder-option are for --encoder FILE; give it too")
    check_folder(out)
    if encoder is not None:
        encoder = _checked_encoder(encoder, card, options)
    with one_writer(out):
        steps = StepRunner(out)
        if encoder is None:
            print(
                f"No encoder given: using {ENCODER}, pretrained on synthetic brains. "
                "Give your own: nnunet-fm demo --encoder FILE"
            )
        _make_data(steps, out)
        _plan(steps, encoder or ENCODER, card, options)
        _train_and_predict(steps, out)
        _evaluate(steps, out)
        picture = _draw(out)
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes.")
    print(f"  picture      {picture}")
    print(f"  scores       {out / 'scores'}")
    print(f"  predictions  {out / 'predictions'}")
    print(f"  model        {out / 'nnUNet_results'}")
    print(f"  logs         {out / 'logs'}")
    return picture


def check_folder(out: Path) -> None:
    """Refuse to clear a folder that holds something else than a demo.

    Raises:
        FileExistsError: it does.
    """
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    theirs = [name for name in names if not name.startswith(".")]  # ours, or of a file manager
    if not theirs:
        return
    if MARKER not in names:
        raise ExistingFileError(
            f"{out} is not empty and not a demo; give another folder: -o FOLDER"
        )
    theirs = sorted({*theirs} - {*OUTPUTS, *FOLDERS})
    if theirs:
        raise ExistingFileError(
            f"{out} holds a demo and {some(theirs)}, which the demo did not write; move that "
            "elsewhere, or give another folder: -o FOLDER"
        )


def _checked_encoder(given: str, card: str | None, options: Sequence[str]) -> str:
    """Load the encoder, and return its name, or its absolute path as the steps change folders.

    Raises:
        MissingFileError, CheckpointError, InputError: as `EncoderSource.resolve`, or an encoder of
            volumes.
    """
    from nnunet_fm.encoders import EncoderSource

    source = EncoderSource.resolve(given, card, options=parse_key_values(options))
    if source.load().input_spec.spatial_dims != 2:
        raise InputError(
            f"{given} holds {source.architecture}, an encoder of volumes; the demo trains on "
            "slices. Allowed: a 2-D encoder"
        )
    return source.file or given


def _make_data(steps: "StepRunner", out: Path) -> None:
    """Write synthetic cases and convert them to an nnU-Net dataset and a folder of test images."""
    from nnunet_fm.data.synthetic import write_brats

    steps.announce(f"making {TRAINING_CASES} training and {TEST_CASES} test cases (synthetic)")
    write_brats(out / "brats", TRAINING_CASES)
    write_brats(out / "test", TEST_CASES, first_seed=TRAINING_CASES, labelled=False)
    (out / "nnUNet_raw").mkdir()
    argv = ("nnunet-fm", "convert", "brats", out / "brats", "-d", DATASET, "-n", NAME)
    steps.run("converting to nnU-Net", (*argv, "--scheme", SCHEME))
    _copy_test_images(out / "test", _test_images(out))


def _plan(steps: "StepRunner", encoder: str, card: str | None, options: Sequence[str]) -> None:
    argv = ["nnUNetv2_plan_and_preprocess", "-d", DATASET, "-c", "2d", "-np", 2, "-npfp", 2]
    steps.run("nnU-Net plans and preprocesses", [*argv, "--verify_dataset_integrity"])
    argv = ["nnunet-fm", "plan", "-d", DATASET, "-c", "2d", "--encoder", encoder, "--patch", 96]
    argv += ["--card", card] if card else []
    argv += [word for option in options for word in ("--encoder-option", option)]
    steps.run("planning around the encoder", [*argv, "-o", PLANS])


def _train_and_predict(steps: "StepRunner", out: Path) -> None:
    from nnunet_fm.internal.device import default_device

    model = ["-p", PLANS, "-tr", TRAINER, "-device", default_device()]
    argv = ["nnUNetv2_train", DATASET, CONFIGURATION, 0, *model]
    steps.run("training", argv)
    argv = ["nnunet-fm", "predict", "-i", _test_images(out), "-o", out / "predictions"]
    argv += ["-d", DATASET, "-c", CONFIGURATION, "-f", 0, *model, "-npp", 1, "-nps", 1]
    steps.run("predicting the test cases", argv)


def _evaluate(steps: "StepRunner", out: Path) -> None:
    argv = ["nnunet-fm", "evaluate", out / "predictions", out / "test" / "labels"]
    argv += ["--scheme", SCHEME, "-o", out / "scores"]
    steps.run("evaluating", argv, show_output=True)


def _draw(out: Path) -> Path:
    """Draw truth and predictions of the test cases into one picture."""
    from nnunet_fm.data.label_schemes import SCHEMES
    from nnunet_fm.evaluation.label_folders import cases_of
    from nnunet_fm.evaluation.overlays import overlay_sheet

    truth = out / "test" / "labels"
    names = cases_of(truth, ".nii.gz")
    picture = out / "overlays.png"
    overlay_sheet(
        [_test_images(out) / f"{name}_{FLAIR:04d}.nii.gz" for name in names],
        [truth / f"{name}.nii.gz" for name in names],
        [out / "predictions" / f"{name}.nii.gz" for name in names],
        SCHEMES[SCHEME].scored_regions,
        picture,
        f"{TRAINER}, synthetic cases",
    )
    return picture


class StepRunner:
    """Runs the demo's commands one after the other, each with its own log.

    Args:
        out: folder of the demo, see `check_folder`; an earlier demo in it is removed.
    """

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).touch()
        _remove_demo(out)
        self.logs = out / "logs"
        self.logs.mkdir()
        self.count = 0
        self.environment = environment() | {name: str(out / name) for name in FOLDERS}
        self.environment |= {
            "nnUNet_n_proc_DA": "2",
            "nnUNet_def_n_proc": "2",
            "PYTHONUNBUFFERED": "1",
        }

    def announce(self, what: str) -> None:
        """Count a step and print what it does."""
        self.count += 1
        print(f"[{self.count}] {what}", flush=True)

    def run(self, what: str, argv: Sequence[object], show_output: bool = False) -> None:
        """Run one command, print its progress, and print its output at the end if asked.

        Raises:
            RuntimeError: it failed; the message holds the end of its log.
        """
        words = [str(word) for word in argv]
        self.announce(f"{what}\n    $ {' '.join(words)}")
        log = self.logs / f"{self.count}_{words[0]}.log"
        started = time.monotonic()
        if self._run_logged(command(words), log):
            raise FailedRunError(f"`{' '.join(words)}` failed; {log_tail(log)}")
        if show_output:
            print(log.read_text(encoding="utf-8"))
        print(f"    {time.monotonic() - started:.0f} s", flush=True)

    def _run_logged(self, argv: Sequence[str], log: Path) -> int:
        process = subprocess.Popen(
            ending_with_us(argv),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=self.environment,
        )
        with log.open("w", encoding="utf-8") as stream, process:
            for line in process.stdout or ():
                stream.write(line)
                shown = progress_line(line)
                if shown:
                    print(f"    {shown}", flush=True)
        return process.returncode


def _remove_demo(out: Path) -> None:
    """Remove what a demo writes, except its marker and its lock."""
    for name in (*OUTPUTS, *FOLDERS):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)


def progress_line(line: str) -> str:
    """Shorten a line of a log to what is printed of it: encoder, epoch, Dice; else empty."""
    text = line.split(": ", 1)[-1].strip()
    if re.match(r"Epoch \d+$", text):
        return f"{text} of {EPOCHS - 1}"
    if "Pseudo dice" in text:
        values = re.findall(r"float32\(([\d.]+|nan)\)", text)
        scores = [f"{name} {value}" for name, value in zip(REGIONS, values, strict=False)]
        return f"validation patches, Dice {', '.join(scores)}"
    return text if "tensor hash" in text else ""


def _test_images(out: Path) -> Path:
    return out / "imagesTs"


def _copy_test_images(source: Path, target: Path) -> None:
    """Copy BraTS cases to the file names that nnU-Net predicts from."""
    from nnunet_fm.data.brats_cases import find_cases
    from nnunet_fm.data.label_schemes import FOUR_CHANNELS

    target.mkdir(parents=True)
    for case in find_cases(source):
        for number, channel in enumerate(FOUR_CHANNELS):
            if channel in case.files:
                shutil.copyfile(case.files[channel], target / f"{case.name}_{number:04d}.nii.gz")
