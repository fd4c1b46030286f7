"""nnU-Net's own prediction commands and validation, with another predictor.

nnU-Net's entry points read `sys.argv` and look their predictor up in their module, so both are
replaced for the time of a call.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from nnunetv2.inference import predict_from_raw_data

from nnunet_fm.data.image_checks import find_cases
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some
from nnunet_fm.internal.processes import end_workers_with_us
from nnunet_fm.internal.threads import limit_threads_to_cores
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.orientations import (
    TURNING_READERS,
    orientation_of,
    orientation_problem,
    trained_orientations,
)
from nnunet_fm.nnunet.predictor import BatchedPredictor, bare_network
from nnunet_fm.nnunet.trained_models import check_model, with_local_model

PROGRAM = "nnunet-fm predict"


@contextmanager
def replaced_predictor(module: ModuleType, predictor: type[BatchedPredictor]) -> Iterator[None]:
    """Let a module of nnU-Net build `predictor` wherever it names `nnUNetPredictor`.

    Args:
        module: e.g. `nnunetv2.inference.predict_from_raw_data`.
        predictor: the class to build.
    """
    original = module.nnUNetPredictor
    module.nnUNetPredictor = predictor  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.nnUNetPredictor = original  # type: ignore[attr-defined]


@contextmanager
def _replaced_argv(argv: Sequence[str]) -> Iterator[None]:
    original = sys.argv
    sys.argv = [PROGRAM, *argv]
    try:
        yield
    finally:
        sys.argv = original


def predict_with_arguments(
    argv: Sequence[str], report: Callable[[str], None], **options: Any
) -> dict[str, str]:
    """Run nnU-Net's prediction command with the batched predictor.

    Args:
        argv: flags of `nnUNetv2_predict`, or of `nnUNetv2_predict_from_modelfolder` where `-m` is
            among them, with a folder or `hf://OWNER/NAME[@REVISION]`.
        report: called with the precision once the model is loaded, and with the cases that cannot
            be predicted before the others are.
        **options: `precision`, `pixels_per_batch` and `skip_background` of `BatchedPredictor`.

    Returns:
        What is wrong with the cases and files that were not predicted, by name.

    Raises:
        UserError: an unknown dataset, model or fold, a model that the Hub does not give, or no
            input case that can be predicted.
    """
    argv = with_local_model(argv)
    check_model(argv)
    end_workers_with_us()
    stock = predict_from_raw_data
    entry = stock.predict_entry_point_modelfolder if "-m" in argv else stock.predict_entry_point
    problems: dict[str, str] = {}
    predictor = _command_predictor(report, options, problems)
    with replaced_predictor(stock, predictor), _replaced_argv(argv):
        entry()
    return problems


def _command_predictor(
    report: Callable[[str], None], options: dict[str, Any], problems: dict[str, str]
) -> type[BatchedPredictor]:
    """Return a predictor class that nnU-Net can build without knowing our options.

    nnU-Net has set the number of torch's threads when it builds it.
    """

    class CommandPredictor(BatchedPredictor):
        """Checks the input images and reports the precision."""

        model: Path | None = None

        def __init__(self, *args: Any, **stock_arguments: Any) -> None:
            limit_threads_to_cores()
            super().__init__(*args, **options, **stock_arguments)

        def initialize_from_trained_model_folder(
            self, model: str, *args: Any, **stock_arguments: Any
        ) -> None:
            """Load the model, then report the precision that it will compute in."""
            super().initialize_from_trained_model_folder(model, *args, **stock_arguments)
            self.model = Path(model)
            report(_precision_message(self))

        def _manage_input_and_output_lists(
            self, source: Any, *args: Any, **stock_arguments: Any
        ) -> Any:
            """Check every case of an input folder, and predict those that can be used."""
            if isinstance(source, str):
                channels = len(self.dataset_json["channel_names"])
                cases, found = find_cases(Path(source), channels, self.dataset_json["file_ending"])
                problems.update(found | self._turned(cases))
                cases = {name: paths for name, paths in cases.items() if name not in problems}
                _report_problems(Path(source), len(cases), problems, report)
                source = [[str(path) for path in paths] for paths in cases.values()]
            return super()._manage_input_and_output_lists(source, *args, **stock_arguments)

        def _turned(self, cases: Mapping[str, Sequence[Path]]) -> dict[str, str]:
            """Describe the cases whose axes are stored otherwise than those of the training."""
            if self.model is None:
                return {}
            if self.plans_manager.plans.get("image_reader_writer") in TURNING_READERS:
                return {}
            trained = trained_orientations(self.model)
            mirrored = bool(self.allowed_mirroring_axes)
            found = {
                name: orientation_problem(orientation_of(paths[0]), trained, mirrored)
                for name, paths in cases.items()
            }
            return {name: problem for name, problem in found.items() if problem}

    return CommandPredictor


def _report_problems(
    folder: Path, usable: int, problems: Mapping[str, str], report: Callable[[str], None]
) -> None:
    """Name every case that cannot be predicted; raise InputError if none can."""
    listed = [f"{name}: {problem}" for name, problem in problems.items()]
    if not usable:
        raise InputError(f"no case in {folder} can be predicted: {some(listed, len(listed))}")
    for line in listed:
        report(f"not predicted: {line}")


def _precision_message(predictor: BatchedPredictor) -> str:
    if not isinstance(bare_network(predictor.network), FrozenEncoderNetwork):
        return "stock network: nnU-Net's own precision, tiles batched"
    return (
        f"precision {predictor.precision} ({predictor.precision_reason}); "
        "stock nnU-Net uses float32 on CPUs: --precision float32"
    )
