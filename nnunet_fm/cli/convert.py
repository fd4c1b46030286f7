"""`nnunet-fm convert`: public datasets in nnU-Net's raw format."""

import argparse

from nnunet_fm.cli.parser import Commands, add_group, label_scheme
from nnunet_fm.internal import option_types
from nnunet_fm.internal.folders import nnunet_folder

LEFT_OUT = 1  # exit code
MOST_LINES = 20
ABOUT = """\
Layouts: a folder for each case, at any depth, or many cases in one folder; links are followed.
  BraTS2021_00006/BraTS2021_00006_t1ce.nii.gz           t1 t1ce t2 flair seg       (2017-2021)
  BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1c.nii.gz    t1n t1c t2w t2f seg        (since 2023)
  BraTS-MEN-RT-0001-1/BraTS-MEN-RT-0001-1_t1c.nii.gz    t1c gtv                    (radiotherapy)
Other spellings at the end of a name (T1_Gd, T1w, T1post, ...) are known; files with other names
are listed as not used, and can be given with --channel and --segmentation.

Label schemes, found by the case names and checked against the labels of the whole folder:
{schemes}

Exit code: 0 all cases and files were used, 1 the dataset was written but something was left out
(listed, and in its skipped.csv), 2 nothing was written. More: docs/data.md
"""


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm convert`."""
    _, formats = add_group(commands, "convert", "write an nnU-Net raw dataset")
    brats = formats.add_parser(
        "brats",
        help="BraTS 2017-2025: GLI, SSA, METS, MEN, MEN-RT, PED, GoAT",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=ABOUT.format(schemes=_scheme_lines()),
    )
    brats.add_argument("source", type=option_types.existing_folder, help="folder of the download")
    brats.add_argument(
        "-d", type=option_types.dataset_id, required=True, metavar="ID", help="dataset id"
    )
    brats.add_argument(
        "-n", type=option_types.name, required=True, metavar="NAME", help="dataset name"
    )
    brats.add_argument(
        "--scheme",
        type=label_scheme,
        metavar="NAME",
        help="what the labels mean (default: found by the names of the cases), see below",
    )
    brats.add_argument(
        "--channel",
        type=option_types.KeyValue("CHANNEL=PATTERN"),
        action="append",
        default=[],
        metavar="CHANNEL=PATTERN",
        help="further file name of T1, T1c, T2 or FLAIR, e.g. T1='*_t1_bet.nii.gz'; the first * "
        "is the case. May be repeated",
    )
    brats.add_argument(
        "--segmentation",
        type=option_types.text,
        action="append",
        default=[],
        metavar="PATTERN",
        help="further file name of the segmentation, e.g. '*_Segm.nii'. May be repeated",
    )
    brats.add_argument(
        "--strict",
        action="store_true",
        help="write nothing if a case or file would be left out, a case among labelled ones has no "
        "segmentation, or orientations differ",
    )
    brats.add_argument(
        "--copy", action="store_true", help="copy the images instead of linking them"
    )
    brats.add_argument(
        "-np",
        type=option_types.processes,
        default=4,
        help="cases converted in parallel (default: 4)",
    )
    brats.set_defaults(function=_brats)


def _scheme_lines() -> str:
    from nnunet_fm.data.label_schemes import SCHEMES

    return "\n".join(
        f"  {scheme.name:9} {scheme.title}, {scheme.years}: {scheme.meaning}"
        for scheme in SCHEMES.values()
    )


def _brats(parsed: argparse.Namespace) -> int:
    from nnunet_fm.data.brats import convert_brats
    from nnunet_fm.data.brats_cases import FileNames

    result = convert_brats(
        parsed.source,
        nnunet_folder("nnUNet_raw"),
        parsed.d,
        parsed.n,
        parsed.copy,
        parsed.np,
        parsed.scheme,
        FileNames.parse(parsed.channel, parsed.segmentation),
        parsed.strict,
    )
    print(result.scheme)
    print(
        f"wrote {result.folder}: {len(result.training)} training and {len(result.test)} test cases"
    )
    lines = result.warnings()
    for line in lines[:MOST_LINES]:
        print(f"  WARNING: {line}")
    if len(lines) > MOST_LINES:
        print(f"  and {len(lines) - MOST_LINES} more: {result.folder / 'skipped.csv'}")
    return LEFT_OUT if result.left_out else 0
