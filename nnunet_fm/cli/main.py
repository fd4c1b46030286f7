"""One command, `nnunet-fm`. Torch is imported by the sub-commands that need it, so that `--help` answers at once."""

import argparse
import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunet_fm.internal import folders
from nnunet_fm.internal.arguments import block_numbers
from nnunet_fm.internal.errors import InputError
from nnunet_fm.nnunet.commands import check_trainer, command, environment

# name of a group of commands: where they are, and what they are for
GROUPS = {
    "features": (
        "nnunet_fm.cli.features",
        "cached features: extract, check-table, check-leakage, list, verify, gc",
    ),
    "heads": (
        "nnunet_fm.cli.heads",
        "classification, regression, survival on cached features: list, run, compare, ...",
    ),
    "analyze": ("nnunet_fm.cli.analyze", "representations of frozen encoders: cka, similarity"),
    "sweep": (
        "nnunet_fm.cli.sweep",
        "a benchmark of many runs: sweep CONFIG.yaml, sweep status FOLDER",
    ),
    "pretrain": (
        "nnunet_fm_pretrain.cli",
        "train an encoder on unlabelled MRI: prepare, run, export, probe",
    ),
}
# single commands
COMMANDS = ("nnunet_fm.cli.evaluate", "nnunet_fm.cli.robustness", "nnunet_fm.cli.report")
# extra that brings a package
EXTRAS = dict.fromkeys(
    ("blosc2", "cv2", "lightly", "lightning_fabric", "pytorch_lightning"), "pretrain"
)
EXTRAS |= {"submitit": "slurm", "monai": "volume"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; errors that a user can mend are one message, not a traceback."""
    warnings.filterwarnings(
        "ignore", message=".*torch.jit", category=FutureWarning
    )  # torch about itself
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["run"]:
        return _run(words[1:])
    if (
        words[:1] == ["sweep"]
        and len(words) > 1
        and words[1] not in ("run", "status", "-h", "--help")
    ):
        words.insert(1, "run")
    if words[:1] == ["predict"]:
        return _mended(lambda: _predict(words[1:]))
    parser = build_parser()
    parsed, rest = parser.parse_known_args(words)
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    if rest and (overrides != rest or not hasattr(parsed, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.overrides = [*parsed.overrides, *overrides]
    return _mended(lambda: parsed.function(parsed))


def _mended(function: Callable[[], int | None]) -> int:
    try:
        return function() or 0
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRAS:
            raise
        needed = f"pip install 'nnunet-fm[{EXTRAS[package]}]'"
        print(f"nnunet-fm: this command needs {package}; type: {needed}", file=sys.stderr)
        return 2
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"nnunet-fm: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of everything but `run` and `predict`, which hand their arguments on."""
    parser = argparse.ArgumentParser(
        prog="nnunet-fm",
        description="Any foundation encoder, frozen, inside stock nnU-Net.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    path = commands.add_parser("path", help="print the folder of trainers, for nnUNet_extTrainer")
    path.set_defaults(
        function=lambda _: print(folders.with_trainers(os.environ.get(folders.EXT_TRAINER)))
    )
    commands.add_parser(
        "run", help="run a command with nnUNet_extTrainer set: nnunet-fm run nnUNetv2_train ..."
    )
    commands.add_parser(
        "predict", help="as nnUNetv2_predict, slices and mirrors batched: nnunet-fm predict -h"
    )
    _add_encoders(commands)
    _add_plan(commands)
    _add_model_commands(commands)
    _add_data_commands(commands)
    for name, (module, text) in GROUPS.items():
        group = commands.add_parser(name, help=text).add_subparsers(
            required=True, metavar="COMMAND"
        )
        importlib.import_module(module).add_commands(group)
    for module in COMMANDS:
        importlib.import_module(module).add_command(commands)
    doctor = commands.add_parser(
        "doctor", help="check versions, folders, device, encoder files; print the fixes"
    )
    doctor.set_defaults(function=_doctor)
    return parser


def _add_encoders(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    encoders = commands.add_parser(
        "encoders", help="list, show, or verify a weight file"
    ).add_subparsers(required=True)
    encoders.add_parser("list", help="the weight cards").set_defaults(function=_encoders_list)
    show = encoders.add_parser("show", help="one card")
    show.add_argument("name")
    show.set_defaults(function=_encoders_show)
    verify = encoders.add_parser("verify", help="load a file strictly and say what was done")
    verify.add_argument("file", type=Path)
    verify.add_argument(
        "--encoder", metavar="NAME", help="card or architecture; found from the file if not given"
    )
    verify.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="e.g. qkv_bias=true"
    )
    verify.set_defaults(function=_encoders_verify)


def _add_plan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    plan = commands.add_parser(
        "plan", help="write plans FM_<encoder> from the dataset's nnU-Net plans"
    )
    plan.add_argument("-d", required=True, metavar="ID", help="dataset id or name")
    plan.add_argument(
        "-c", default="2d", metavar="CONFIGURATION", help="stock configuration to inherit from"
    )
    plan.add_argument(
        "--encoder", required=True, metavar="NAME|FILE|none", help="none: stock nnU-Net on a subset"
    )
    plan.add_argument(
        "--card", help="weight card of the file, where it cannot be told from the file"
    )
    plan.add_argument("--preset", help="a file of plans/, e.g. 2d_fm512")
    plan.add_argument("--patch", type=int, nargs="+", metavar="N", help="side(s) in pixels")
    plan.add_argument(
        "--fov", choices=("native", "fit"), help="keep the spacing, or resample to fit the patch"
    )
    plan.add_argument(
        "--taps", type=block_numbers, metavar="2,5,8,11", help="blocks whose features are decoded"
    )
    plan.add_argument("--fusion", help="learnable, fixed or learnable_then_fixed(EPOCHS)")
    plan.add_argument("--decoder", help="slices: primus, light; volumes: unetr, primus3d, pyramid")
    plan.add_argument(
        "--intensity", choices=("encoder", "stock"), default="encoder", help="whose normalisation"
    )
    plan.add_argument(
        "--mix-slices", type=int, metavar="K", help="2.5-D: 3 or 5 neighbouring slices (1: none)"
    )
    plan.add_argument("--batch-size", type=int)
    plan.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="e.g. qkv_bias=true"
    )
    plan.add_argument(
        "--seed", type=int, help="of random weights, where NAME has no file; default 0"
    )
    plan.add_argument(
        "--train-ratio", type=float, default=1.0, help="share of the training cases, e.g. 0.1"
    )
    plan.add_argument("--subset-seed", type=int, default=42)
    plan.add_argument("--subset-rule", default="nested", choices=("nested", "reference"))
    plan.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans to start from")
    plan.add_argument("-o", metavar="IDENTIFIER", help="name of the plans to write")
    plan.set_defaults(function=_plan)


def _add_model_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    info = commands.add_parser("info", help="parameters and operations of a network")
    info.add_argument("--encoder", required=True, metavar="NAME")
    info.add_argument("--channels", type=int, default=4)
    info.add_argument("--classes", type=int, default=3)
    info.add_argument("--patch", type=int, nargs=2, default=(256, 256))
    info.add_argument("--decoder", choices=("primus", "light"), default="primus")
    info.add_argument("--json", action="store_true")
    info.set_defaults(function=_info)
    export = commands.add_parser(
        "export", help="make a model folder that predicts without nnUNet_extTrainer"
    )
    export.add_argument(
        "model", type=Path, help="nnUNet_results/DatasetXXX/TRAINER__PLANS__CONFIGURATION"
    )
    export.add_argument("out", type=Path)
    export.add_argument("-chk", default="checkpoint_final.pth")
    export.set_defaults(function=_export)


def _add_data_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    convert = commands.add_parser("convert", help="make an nnU-Net raw dataset").add_subparsers(
        required=True
    )
    brats = convert.add_parser("brats", help="BraTS 2018-2024, METS, MEN, GoAT")
    brats.add_argument("source", type=Path)
    brats.add_argument("-d", type=int, required=True, metavar="ID")
    brats.add_argument("-n", required=True, metavar="NAME")
    brats.add_argument(
        "--copy", action="store_true", help="copy the images instead of linking them"
    )
    brats.add_argument("-np", type=int, default=4, help="cases at a time")
    brats.set_defaults(function=_convert)
    demo = commands.add_parser("demo", help="from made data to Dice and a picture, in minutes")
    demo.add_argument("-o", type=Path, default=Path("demo"), help="folder for everything")
    demo.add_argument(
        "--encoder", metavar="FILE", help="weight file; the small one that comes along if not given"
    )
    demo.set_defaults(function=_demo)


def _run(words: list[str]) -> int:
    if not words:
        print(
            "nnunet-fm run: give a command, e.g. nnunet-fm run nnUNetv2_train 8 2d_fm256 0 ...",
            file=sys.stderr,
        )
        return 2
    return _mended(lambda: subprocess.run(command(words), env=environment()).returncode)


def _predict(words: list[str]) -> int:
    check_trainer(["nnunet-fm", *words])
    from nnunet_fm.cli.predict import predict_command

    folders.activate()
    return predict_command(words)


def _encoders_list(_: argparse.Namespace) -> None:
    from nnunet_fm.encoders import CARDS

    print(f"{'name':34}{'architecture':22}{'licence':34}pretrained on")
    for card in CARDS.values():
        if "test" not in card.name:
            data = ", ".join(card.pretrained_on[:3]) + (
                ", ..." if len(card.pretrained_on) > 3 else ""
            )
            print(f"{card.name:34}{card.architecture:22}{card.licence[:32]:34}{data}")
    print(
        "\nRandom weights: the architecture's name. Any plain ViT of timm: timm/NAME. A file: its path."
    )


def _encoders_show(parsed: argparse.Namespace) -> None:
    from dataclasses import asdict

    from nnunet_fm.encoders import get_card

    for key, value in asdict(get_card(parsed.name)).items():
        print(f"{key:16}{', '.join(value) if isinstance(value, tuple) else value}")


def _encoders_verify(parsed: argparse.Namespace) -> None:
    from nnunet_fm.encoders import load_encoder
    from nnunet_fm.encoders.loading.load_report import describe, fingerprint
    from nnunet_fm.encoders.registry import parse_options

    encoder, report = load_encoder(parsed.file, parsed.encoder, **parse_options(parsed.option))
    print(describe(report))
    print(f"fingerprint   {fingerprint(encoder)}")


def _plan(parsed: argparse.Namespace) -> None:
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    from nnunet_fm.encoders.registry import parse_options
    from nnunet_fm.nnunet.plan_options import PlanRequest
    from nnunet_fm.nnunet.planning import write_plans
    from nnunet_fm.nnunet.train_subset import TrainSubset

    root = folders.nnunet_folder("nnUNet_preprocessed")
    if not parsed.d.startswith("Dataset") and not parsed.d.isdecimal():
        raise InputError(
            f"dataset {parsed.d!r}; allowed: an id such as 8, or a name such as Dataset008_BraTS21"
        )
    dataset = maybe_convert_to_dataset_name(int(parsed.d) if parsed.d.isdecimal() else parsed.d)
    subset = TrainSubset(parsed.train_ratio, parsed.subset_seed, parsed.subset_rule)
    request = PlanRequest(
        base=parsed.c,
        encoder=parsed.encoder,
        card=parsed.card,
        preset=parsed.preset,
        patch=tuple(parsed.patch) if parsed.patch else None,
        fov=parsed.fov,
        taps=parsed.taps,
        fusion=parsed.fusion,
        decoder=parsed.decoder,
        batch_size=parsed.batch_size,
        seed=parsed.seed,
        options=parse_options(parsed.option),
        intensity=parsed.intensity,
        mix_slices=parsed.mix_slices,
        subset=subset,
        source_plans=parsed.p,
        output=parsed.o,
    )
    written = write_plans(root / dataset, request)
    print(f"wrote {written.path}\n{written.summary}")


def _info(parsed: argparse.Namespace) -> None:
    from nnunet_fm.network.summary import network_info

    found = network_info(
        parsed.encoder, parsed.channels, parsed.classes, tuple(parsed.patch), parsed.decoder
    )
    if parsed.json:
        print(json.dumps(found))
        return
    for key, value in found.items():
        print(f"{key:16}{value:,}" if isinstance(value, int) else f"{key:16}{value}")
    print(f"{'frozen share':16}{100 * found['encoder'] / found['total']:.2f} %")


def _export(parsed: argparse.Namespace) -> None:
    from nnunet_fm.nnunet.export import export_model

    found = export_model(parsed.model, parsed.out, parsed.chk)
    print(
        f"wrote {parsed.out} ({', '.join(found)}). The encoder's weights are inside: mind their licence."
    )
    print(
        f"predict with: nnUNetv2_predict_from_modelfolder -m {parsed.out} -i INPUT -o OUTPUT -f 0"
    )


def _convert(parsed: argparse.Namespace) -> None:
    from nnunet_fm.data.brats import convert_brats

    result = convert_brats(
        parsed.source,
        folders.nnunet_folder("nnUNet_raw"),
        parsed.d,
        parsed.n,
        parsed.copy,
        parsed.np,
    )
    print(
        f"wrote {result.folder}: {len(result.training)} training and {len(result.test)} test cases"
    )
    for case, reason in result.skipped.items():
        print(f"  left out {case}: {reason}")


def _demo(parsed: argparse.Namespace) -> None:
    from nnunet_fm.cli.demo import run_demo

    run_demo(parsed.o.absolute(), str(Path(parsed.encoder).absolute()) if parsed.encoder else None)


def _doctor(_: argparse.Namespace) -> int:
    from nnunet_fm.cli.doctor import examine
    from nnunet_fm.internal.findings import print_findings

    return print_findings(examine())
