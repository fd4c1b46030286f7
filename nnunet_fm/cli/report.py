"""`nnunet-fm report RUNS -o OUT`: one page, tables and figures."""

import argparse
import os
import sys
from pathlib import Path

from nnunet_fm.cli.evaluate import add_metric_options, metric_options
from nnunet_fm.cli.parser import Commands
from nnunet_fm.internal import option_types


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm report`."""
    report = commands.add_parser(
        "report", help="page, tables and figures of a sweep or of nnU-Net's result folders"
    )
    report.add_argument(
        "runs",
        type=option_types.existing_folder,
        nargs="+",
        help="sweeps/NAME, or folders in nnUNet_results",
    )
    report.add_argument(
        "-o",
        type=option_types.output_folder,
        required=True,
        metavar="FOLDER",
        help="for report.html, tables, figures",
    )
    report.add_argument(
        "--reference",
        type=option_types.text,
        metavar="ENCODER",
        help="encoder that the others are compared with (default: the first)",
    )
    report.add_argument("--title", type=option_types.text, help="title of the page")
    report.add_argument(
        "--case",
        type=option_types.text,
        action="append",
        default=[],
        help="show this case, too; may be repeated",
    )
    report.add_argument(
        "-np", type=option_types.processes, default=2, help="processes (default: 2)"
    )
    add_metric_options(report)
    report.set_defaults(function=_report)


def _report(parsed: argparse.Namespace) -> int:
    from nnunet_fm.experiments.find_runs import find_runs
    from nnunet_fm.experiments.report.contents import ReportOptions, make_report
    from nnunet_fm.experiments.report.write_report import FOLD_ALL, write_report
    from nnunet_fm.experiments.status import read_status_of_folders
    from nnunet_fm.internal.folders import nnunet_folder

    runs = find_runs(parsed.runs)
    options = ReportOptions(
        title=parsed.title or f"nnunet-fm: {parsed.runs[0].absolute().name}",
        reference=parsed.reference,
        metrics=metric_options(parsed),
        cases=tuple(parsed.case),
        workers=parsed.np,
    )
    preprocessed = nnunet_folder("nnUNet_preprocessed")
    raw = Path(os.environ["nnUNet_raw"]) if os.environ.get("nnUNet_raw") else None
    report = make_report(runs, read_status_of_folders(parsed.runs, runs), preprocessed, options)
    files = write_report(report, raw, preprocessed, parsed.o, options)
    if report.unfinished:
        print(f"UNFINISHED: {len(report.unfinished)} of {len(runs)} runs are not in the report")
    if report.has_fold_all:
        print(f"NOTE: {FOLD_ALL.strip()}")
    print(f"wrote {files[0]}, and {len(files) - 1} files in tables/ and figures/")
    for line in report.left_out:
        print(f"not scored: {line}", file=sys.stderr)
    return 1 if report.left_out else 0
