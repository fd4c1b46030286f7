"""`nnunet-fm plan`: write plans around a frozen encoder."""

import argparse

from nnunet_fm.cli.parser import Commands
from nnunet_fm.internal import option_types
from nnunet_fm.internal.arguments import add_model_arguments, model_from_arguments
from nnunet_fm.nnunet.plan_options import PlanOptions


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm plan`; its flags are the fields of `PlanOptions`."""
    plan = commands.add_parser(
        "plan", help="write plans FM_<encoder> from the dataset's nnU-Net plans"
    )
    plan.add_argument(
        "-d", type=option_types.name, required=True, metavar="ID", help="dataset id or name"
    )
    add_model_arguments(plan, PlanOptions)
    plan.set_defaults(function=_plan)


def _plan(parsed: argparse.Namespace) -> None:
    from nnunet_fm.internal.folders import nnunet_folder
    from nnunet_fm.nnunet.datasets import dataset_name
    from nnunet_fm.nnunet.planning import write_plans

    options = model_from_arguments(PlanOptions, parsed)
    preprocessed = nnunet_folder("nnUNet_preprocessed")
    written = write_plans(preprocessed / dataset_name(parsed.d), options)
    print(f"wrote {written.path}\n{written.summary}")
