"""`nnunet-fm predict`: nnU-Net's own command line around the batched predictor, with three flags more."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, get_args

from nnunetv2.inference import predict_from_raw_data as stock

from nnunet_fm.data.image_checks import check_input_folder
from nnunet_fm.internal.device import Precision
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.predictor import BatchedPredictor, bare_network


class CommandPredictor(BatchedPredictor):
    """The predictor as the command line asks for it; checks the input and says its precision."""

    chosen: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **stock_arguments: Any) -> None:
        super().__init__(*args, **self.chosen, **stock_arguments)

    def initialize_from_trained_model_folder(self, *args: Any, **stock_arguments: Any) -> None:
        """Load the model, then say what it will compute in."""
        super().initialize_from_trained_model_folder(*args, **stock_arguments)
        if isinstance(bare_network(self.network), FrozenEncoderNetwork):
            print(
                f"precision {self.precision} ({self.precision_reason}); --precision float32 is stock's on CPUs"
            )
        else:
            print("stock network: nnU-Net's own precision, tiles batched")

    def _manage_input_and_output_lists(
        self, source: Any, *args: Any, **stock_arguments: Any
    ) -> Any:
        """nnU-Net's first step with the input folder: check every case before any of them is predicted."""
        if isinstance(source, str):
            channels = len(self.dataset_json["channel_names"])
            check_input_folder(Path(source), channels, self.dataset_json["file_ending"])
        return super()._manage_input_and_output_lists(source, *args, **stock_arguments)


def predict_command(words: list[str]) -> int:
    """Run nnU-Net's prediction with our predictor.

    Args:
        words: the flags of `nnUNetv2_predict`, or of `nnUNetv2_predict_from_modelfolder` where `-m`
            is among them.
    """
    parser = argparse.ArgumentParser(
        prog="nnunet-fm predict",
        add_help=False,
        allow_abbrev=False,
        description="All flags of nnUNetv2_predict (or, with -m, of nnUNetv2_predict_from_modelfolder), and:",
    )
    parser.add_argument("-h", "--help", action="store_true", help="this, then nnU-Net's own flags")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="default: the fastest the device is good at",
    )
    parser.add_argument(
        "--pixels-per-batch", type=int, default=16 * 256 * 256, help="lower it if memory runs out"
    )
    parser.add_argument(
        "--skip-background", action="store_true", help="call slices without any signal background"
    )
    ours, theirs = parser.parse_known_args(words)
    if ours.help:
        parser.print_help()
        theirs = [*theirs, "-h"]
    CommandPredictor.chosen = {k: v for k, v in vars(ours).items() if k != "help"}
    entry = stock.predict_entry_point_modelfolder if "-m" in theirs else stock.predict_entry_point
    with _in_the_place_of_stock(theirs):
        entry()
    return 0


@contextmanager
def _in_the_place_of_stock(words: list[str]) -> Iterator[None]:
    """nnU-Net's entry points read `sys.argv` and name their predictor at module level."""
    arguments, predictor = sys.argv, stock.nnUNetPredictor
    sys.argv, stock.nnUNetPredictor = ["nnunet-fm predict", *words], CommandPredictor
    try:
        yield
    finally:
        sys.argv, stock.nnUNetPredictor = arguments, predictor
