"""`nnunet-fm export`: a model folder that stock nnU-Net predicts with."""

import argparse
from pathlib import Path

from nnunet_fm.cli.parser import Commands


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm export`."""
    export = commands.add_parser(
        "export", help="write a model folder that predicts without nnUNet_extTrainer"
    )
    export.add_argument(
        "model", type=Path, help="nnUNet_results/DatasetXXX/TRAINER__PLANS__CONFIGURATION"
    )
    export.add_argument("out", type=Path, help="folder to write")
    export.add_argument("-chk", default="checkpoint_final.pth", help="checkpoint of each fold")
    export.set_defaults(function=_export)


def _export(parsed: argparse.Namespace) -> None:
    from nnunet_fm.nnunet.export import export_model

    folds = export_model(parsed.model, parsed.out, parsed.chk)
    print(
        f"wrote {parsed.out} ({', '.join(folds)}). "
        "The encoder's weights are inside: mind their licence."
    )
    print(
        f"predict with: nnUNetv2_predict_from_modelfolder -m {parsed.out} -i INPUT -o OUTPUT -f 0"
    )
