"""The planner, run on the plans of the fixture `stock_plans`."""

import json
from pathlib import Path

from nnunet_fm.internal.config import parse_settings
from nnunet_fm.nnunet.plan_options import PlanOptions
from nnunet_fm.nnunet.planning import write_plans


def plan(folder: Path, **request: object) -> tuple[dict, str]:
    """Write plans; return their content and the summary for the user."""
    found = write_plans(folder, parse_settings(PlanOptions, request, "plan"))
    return json.loads(found.path.read_text()), found.summary


def name_channels(folder: Path, *names: str) -> None:
    """Write a dataset.json with these channels."""
    content = {"channel_names": {str(n): name for n, name in enumerate(names)}, "numTraining": 4}
    (folder / "dataset.json").write_text(json.dumps(content))


def arguments_of(plans: dict, configuration: str) -> dict:
    """Return the arguments of the network of a configuration."""
    return plans["configurations"][configuration]["architecture"]["arch_kwargs"]
