"""`nnunet-fm export`: a model folder for stock nnU-Net, or for the Hugging Face Hub."""

import argparse
import shlex

from nnunet_fm.cli.parser import Commands, add_trust
from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.hub_folder import upload_advice


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm export`."""
    export = commands.add_parser(
        "export",
        help="write a model folder that predicts without nnUNet_extTrainer, or one for the Hugging "
        "Face Hub",
    )
    export.add_argument(
        "model",
        type=option_types.existing_folder,
        help="nnUNet_results/DatasetXXX/TRAINER__PLANS__CONFIGURATION, or a folder of --hub",
    )
    target = export.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "out", nargs="?", type=option_types.output_folder, help="folder to write, for stock nnU-Net"
    )
    target.add_argument(
        "--hub",
        type=option_types.output_folder,
        metavar="FOLDER",
        help="folder for the Hugging Face Hub: safetensors, with a model card; its name is the "
        "model's, and nnunet-fm predict -m takes it",
    )
    export.add_argument(
        "--i-have-permission",
        action="store_true",
        help="with --hub: the owners of the encoder's weights allow it, although their licence "
        "forbids it or is unknown",
    )
    export.add_argument(
        "-chk",
        type=option_types.name,
        default="checkpoint_final.pth",
        help="checkpoint of each fold",
    )
    add_trust(export)
    export.set_defaults(function=_export)


def _export(parsed: argparse.Namespace) -> None:
    if parsed.hub is not None:
        _publish(parsed)
        return
    if parsed.i_have_permission:
        raise InputError("--i-have-permission is for --hub FOLDER; remove it")
    from nnunet_fm.internal.device import default_device
    from nnunet_fm.nnunet.commands import device_words
    from nnunet_fm.nnunet.export import export_model
    from nnunet_fm.nnunet.splits import folds_to_predict

    folds = export_model(parsed.model, parsed.out, parsed.chk, parsed.trust_checkpoint)
    print(
        f"wrote {parsed.out} ({', '.join(folds)}). "
        "The encoder's weights are inside: mind their licence."
    )
    numbers = folds_to_predict(folds)
    argv = ["nnUNetv2_predict_from_modelfolder", "-m", str(parsed.out), "-i", "INPUT"]
    argv += ["-o", "OUTPUT", "-f", *map(str, numbers), *device_words(default_device())]
    print(f"predict with: {shlex.join(argv)}")


def _publish(parsed: argparse.Namespace) -> None:
    from nnunet_fm.nnunet.publish import publish_model

    written = publish_model(
        parsed.model, parsed.hub, parsed.chk, parsed.trust_checkpoint, parsed.i_have_permission
    )
    licence = f"; licence of the encoder's weights: {written.licence}" if written.licence else ""
    print(f"wrote {parsed.hub} ({', '.join(written.folds)}){licence}")
    print(upload_advice(parsed.hub))
