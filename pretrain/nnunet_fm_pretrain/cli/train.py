"""`nnunet-fm pretrain run`, `export` and `doctor`."""

import argparse

from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.hub_folder import upload_advice
from nnunet_fm_pretrain.cli.parser import Commands


def add_commands(commands: Commands) -> None:
    """Add the commands that train and export."""
    _add_run(commands)
    _add_export(commands)


def _add_run(commands: Commands) -> None:
    run = commands.add_parser(
        "run",
        help="train an encoder; rerun the command to resume",
        usage="nnunet-fm pretrain run RECIPE --store STORE -o RUN [KEY=VALUE ...]",
        epilog="KEY=VALUE changes one key of the recipe, e.g. optimiser.steps=1000",
    )
    run.add_argument(
        "recipe", type=option_types.text, help="name of a shipped recipe, or a YAML file"
    )
    run.add_argument("--store", type=option_types.existing_path, required=True)
    run.add_argument("-o", type=option_types.output_folder, required=True, metavar="RUN")
    run.add_argument(
        "--init-from",
        "--from",
        type=option_types.existing_path,
        metavar="RUN",
        help="start from that run's weights (stage 2)",
    )
    run.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    run.set_defaults(function=_run, overrides=[])


def _run(parsed: argparse.Namespace) -> int:
    from nnunet_fm_pretrain.methods.recipes import read_recipe
    from nnunet_fm_pretrain.methods.registry import get_method

    # wrong words are reported before the slow imports
    recipe = read_recipe(parsed.recipe, parsed.overrides)
    get_method(recipe.objective.method).open_store(parsed.store)
    from nnunet_fm_pretrain.engine.shutdown import StoppedError
    from nnunet_fm_pretrain.runs import pretrain

    try:
        report = pretrain(
            recipe, parsed.store, parsed.o, parsed.init_from, accelerator=parsed.accelerator
        )
    except StoppedError as stopped:  # the log has said where
        return 128 + stopped.number  # exit code of a shell
    if report:
        print(f"finished: {parsed.o}. Next: nnunet-fm pretrain export {parsed.o} -o ENCODER.pth")
    return 0


def _add_export(commands: Commands) -> None:
    export = commands.add_parser(
        "export", help="write the trained encoder as a file for nnunet-fm plan --encoder"
    )
    export.add_argument(
        "run",
        type=option_types.existing_path,
        help="folder of the run, or one of its checkpoints",
    )
    target = export.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "-o",
        type=option_types.encoder_file,
        metavar="FILE",
        help=".pth (DINOv3's form) or .safetensors",
    )
    target.add_argument(
        "--hub",
        type=option_types.output_folder,
        metavar="FOLDER",
        help="folder for the Hugging Face Hub, with a model card; its name is the model's",
    )
    export.add_argument(
        "--i-have-permission",
        action="store_true",
        help="with --hub: the owners of the weights that the run started from allow it, although "
        "their licence forbids derivatives or is unknown",
    )
    export.add_argument("--half", action="store_true", help="float16: half the size")
    export.set_defaults(function=_export)


def _export(parsed: argparse.Namespace) -> None:
    from nnunet_fm_pretrain.runs import export, export_for_hub

    if parsed.hub is None and parsed.i_have_permission:
        raise InputError("--i-have-permission is for --hub FOLDER; remove it")
    if parsed.hub is None:
        card = export(parsed.run, parsed.o, parsed.half)
    else:
        card = export_for_hub(parsed.run, parsed.hub, parsed.half, parsed.i_have_permission)
    if card["step"] < card["steps"]:
        print(
            f"note: this encoder is of step {card['step']} of {card['steps']}, as the run is not "
            "finished"
        )
    print(f"wrote {parsed.hub or parsed.o}: {card['card']}, licence: {card['licence']}")
    if parsed.hub is None:
        print(f"Next: nnunet-fm plan -d DATASET --encoder {parsed.o}")
    else:
        print(upload_advice(parsed.hub))


def add_doctor(commands: Commands) -> None:
    """Add the check before a training."""
    doctor = commands.add_parser(
        "doctor", help="check packages, devices, a store and a recipe; print the fixes"
    )
    doctor.add_argument(
        "--store",
        type=option_types.existing_path,
        help="read every volume of it and compare with the manifest",
    )
    doctor.add_argument(
        "--recipe", type=option_types.text, help="does it fit the store and this machine?"
    )
    doctor.set_defaults(function=_doctor)


def _doctor(parsed: argparse.Namespace) -> int:
    from nnunet_fm.internal.findings import print_findings
    from nnunet_fm_pretrain.doctor import run_checks

    return print_findings(run_checks(parsed.store, parsed.recipe))
