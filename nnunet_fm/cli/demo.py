"""`nnunet-fm demo`: from synthetic data to Dice and a picture, through the commands users type."""

import argparse
import csv
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_fm.cli.demo_steps import REGIONS, StepRunner, check_folder
from nnunet_fm.cli.parser import Commands, add_card, add_encoder_option
from nnunet_fm.internal import option_types
from nnunet_fm.internal.arguments import parse_key_values
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.locks import one_writer

if TYPE_CHECKING:
    from nnunet_fm.encoders import EncoderSource

DATASET, NAME = 999, "FMDemo"
SCHEME = "gli2023"  # of the labels
CONFIGURATION, TRAINER, ENCODER = "2d_fm96", "FrozenDinoTrainerDemo", "synth_vitt16"
PATCH, BATCH, SEED = 96, 8, 0
TRAINING_CASES, TEST_CASES = 20, 4
FLAIR = 3  # number of the channel that is drawn
TOKENS = "tokens"  # the arm that is drawn
ARMS = {
    TOKENS: "the encoder's features",
    "tokens_off": "the U-Net alone",
    "random": "features of random weights",
}


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

    Three networks are trained alike, to show what the encoder brings: with its features, without
    any, and with features of random weights.

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
    arms = plan_arms(encoder or ENCODER, card, options)
    with one_writer(out):
        steps = StepRunner(out)
        if encoder is None:
            print(
                f"No encoder given: using {ENCODER}, pretrained on synthetic brains. "
                "Give your own: nnunet-fm demo --encoder FILE"
            )
        _make_data(steps, out)
        _preprocess(steps)
        for arm, words in arms.items():
            _train_and_predict(steps, out, arm, words)
        picture = _draw(out)
    print(f"\n{comparison(out, list(arms))}")
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes.")
    print(f"  picture      {picture}")
    print(f"  scores       {out / 'scores'}")
    print(f"  predictions  {out / 'predictions'}")
    print(f"  models       {out / 'nnUNet_results'}")
    print(f"  logs         {out / 'logs'}")
    return picture


def plan_arms(encoder: str, card: str | None, options: Sequence[str]) -> dict[str, list[str]]:
    """Load the encoder, and return the words of `nnunet-fm plan` for each arm.

    Raises:
        MissingFileError, CheckpointError, InputError: as `EncoderSource.resolve`, or an encoder of
            volumes.
    """
    from nnunet_fm.encoders import EncoderSource

    source = EncoderSource.resolve(encoder, card, options=parse_key_values(options))
    if source.load().input_spec.spatial_dims != 2:
        raise InputError(
            f"{encoder} holds {source.architecture}, an encoder of volumes; the demo trains on "
            "slices. Allowed: a 2-D encoder"
        )
    # the path is absolute, as the steps change folders
    given = ["--encoder", source.file or encoder, *(["--card", card] if card else [])]
    given += [word for option in options for word in ("--encoder-option", option)]
    arms = {TOKENS: given, "tokens_off": [*given, "--tokens", "off"]}
    if source.seed is None:
        arms["random"] = _random_words(source)
    return arms


def _random_words(source: "EncoderSource") -> list[str]:
    """Return the words that plan the same architecture with random weights."""
    words = ["--encoder", source.architecture]
    for key, value in source.options.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += ["--encoder-option", f"{key}={text}"]
    return words


def _make_data(steps: StepRunner, out: Path) -> None:
    """Write synthetic cases and convert them to an nnU-Net dataset and a folder of test images."""
    from nnunet_fm.data.synthetic import write_brats

    steps.announce(f"making {TRAINING_CASES} training and {TEST_CASES} test cases (synthetic)")
    write_brats(out / "brats", TRAINING_CASES)
    write_brats(out / "test", TEST_CASES, first_seed=TRAINING_CASES, labelled=False)
    (out / "nnUNet_raw").mkdir()
    argv = ("nnunet-fm", "convert", "brats", out / "brats", "-d", DATASET, "-n", NAME)
    steps.run("converting to nnU-Net", (*argv, "--scheme", SCHEME))
    _copy_test_images(out / "test", _test_images(out))


def _preprocess(steps: StepRunner) -> None:
    argv = ["nnUNetv2_plan_and_preprocess", "-d", DATASET, "-c", "2d", "-np", 2, "-npfp", 2]
    steps.run("nnU-Net plans and preprocesses", [*argv, "--verify_dataset_integrity"])


def _train_and_predict(steps: StepRunner, out: Path, arm: str, words: Sequence[str]) -> None:
    """Plan, train, predict and evaluate one arm."""
    from nnunet_fm.internal.device import default_device

    plans = f"FM_{arm}"
    argv = ["nnunet-fm", "plan", "-d", DATASET, "-c", "2d", *words]
    argv += ["--patch", PATCH, "--batch-size", BATCH, "--training-seed", SEED, "-o", plans]
    steps.run(f"{arm} ({ARMS[arm]}): planning", argv)
    model = ["-p", plans, "-tr", TRAINER, "-device", default_device()]
    steps.run(f"{arm}: training", ["nnUNetv2_train", DATASET, CONFIGURATION, 0, *model])
    predictions = out / "predictions" / arm
    argv = ["nnunet-fm", "predict", "-i", _test_images(out), "-o", predictions]
    argv += ["-d", DATASET, "-c", CONFIGURATION, "-f", 0, *model, "-npp", 1, "-nps", 1]
    steps.run(f"{arm}: predicting the test cases", argv)
    argv = ["nnunet-fm", "evaluate", predictions, out / "test" / "labels"]
    argv += ["--scheme", SCHEME, "-o", out / "scores" / arm]
    steps.run(f"{arm}: evaluating", argv, show_output=True)


def comparison(out: Path, arms: Sequence[str]) -> str:
    """Return a table of the mean Dice of each arm, from the files that `evaluate` wrote."""
    lines = [
        f"Mean Dice of {TEST_CASES} synthetic test cases, one training each: an example of the "
        "comparison, too small for a conclusion",
        f"  {'':<40}" + "".join(f"{region:>8}" for region in REGIONS),
    ]
    for arm in arms:
        with (out / "scores" / arm / "scores.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        cells = []
        for region in REGIONS:
            values = [float(row["dice"]) for row in rows if row["region"] == region]
            cells.append(f"{sum(values) / len(values):8.3f}")
        lines.append(f"  {f'{arm} ({ARMS[arm]})':<40}{''.join(cells)}")
    return "\n".join(lines)


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
        [out / "predictions" / TOKENS / f"{name}.nii.gz" for name in names],
        SCHEMES[SCHEME].scored_regions,
        picture,
        f"{TRAINER}, synthetic cases",
    )
    return picture


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
