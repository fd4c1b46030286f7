"""`nnunet-fm export`: a model folder that stock nnU-Net predicts with."""

import argparse
import shlex

from nnunet_fm.cli.parser import Commands, add_trust
from nnunet_fm.internal import option_types


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm export`."""
    export = commands.add_parser(
        "export", help="write a model folder that predicts without nnUNet_extTrainer"
    )
    export.add_argument(
        "model",
        type=option_types.existing_folder,
        help="nnUNet_results/DatasetXXX/TRAINER__PLANS__CONFIGURATION",
    )
    export.add_argument("out", type=option_types.output_folder, help="folder to write")
    export.add_argument(
        "-chk",
        type=option_types.name,
        default="checkpoint_final.pth",
        help="checkpoint of each fold",
    )
    add_trust(export)
    export.set_defaults(function=_export)


def _export(parsed: argparse.Namespace) -> None:
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
