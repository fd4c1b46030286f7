"""`nnunet-fm convert`: public datasets in nnU-Net's raw format."""

import argparse
from pathlib import Path

from nnunet_fm.cli.parser import Commands, add_group
from nnunet_fm.internal.folders import nnunet_folder


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm convert`."""
    _, formats = add_group(commands, "convert", "write an nnU-Net raw dataset")
    brats = formats.add_parser("brats", help="BraTS 2018-2024, METS, MEN, GoAT")
    brats.add_argument("source", type=Path, help="folder of the download")
    brats.add_argument("-d", type=int, required=True, metavar="ID", help="dataset id")
    brats.add_argument("-n", required=True, metavar="NAME", help="dataset name")
    brats.add_argument(
        "--copy", action="store_true", help="copy the images instead of linking them"
    )
    brats.add_argument("-np", type=int, default=4, help="cases converted in parallel (default: 4)")
    brats.set_defaults(function=_brats)


def _brats(parsed: argparse.Namespace) -> None:
    from nnunet_fm.data.brats import convert_brats

    raw = nnunet_folder("nnUNet_raw")
    result = convert_brats(parsed.source, raw, parsed.d, parsed.n, parsed.copy, parsed.np)
    print(
        f"wrote {result.folder}: {len(result.training)} training and {len(result.test)} test cases"
    )
    for case, reason in result.skipped.items():
        print(f"  skipped {case}: {reason}")
