"""How a run begins: from nothing, from a weight file, from another run, or where it stopped."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_fm.encoders import CARDS, load_encoder
from nnunet_fm.encoders.licence import licence_of_derivative
from nnunet_fm.internal.config import parse_settings
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.hub_address import is_hub_address
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import EncoderRecipe, Recipe, recipe_differences

RECIPE = "recipe.yaml"  # what a run was begun with, in its folder

logger = logging.getLogger(__name__)


def parse_earlier(content: Mapping[str, Any], method: Method, where: Path) -> Recipe:
    """Return the recipe that is stored in a checkpoint.

    Raises:
        ValueError: it is of another method.
    """
    name = content["recipe"]["objective"]["method"]
    if name != method.name:
        raise InputError(
            f"{where} was trained by the method {name}, this recipe is for {method.name}; "
            "allowed: the same method, or encoder.init=FILE with the file of `pretrain export`"
        )
    return parse_settings(method.recipe, content["recipe"], str(where))


def check_resumable(
    content: Mapping[str, Any], method: Method, recipe: Recipe, store: Store, run: Path
) -> None:
    """Check that a recipe and a store continue the run of a checkpoint exactly.

    Raises:
        ValueError: another recipe or another store.
    """
    earlier = parse_earlier(content, method, run)
    method.check_resume(recipe, earlier, run)
    changed = recipe_differences(earlier, recipe)
    if changed:
        raise InputError(
            f"{run} holds a run of another recipe. Different: {some(changed)}. "
            f"Give a new folder, or resume it with its own recipe: {run / RECIPE}"
        )
    if content["store"] != store.identity():
        raise InputError(
            f"the store {store.folder} is not the one that {run} was begun with (its volumes, "
            "their checksums or their acquisition differ), so the run cannot be resumed exactly. "
            "Restore the former store, or give a new folder"
        )
    _warn_of_threads(content["recipe"]["run"].get("threads"), recipe.run.threads, run)


def _warn_of_threads(before: int | None, now: int, run: Path) -> None:
    """Say that a run resumes with another number of threads than it was begun with."""
    if before is None:
        logger.warning(
            "%s does not say with how many threads it was begun (version 0.1); it resumes with "
            "run.threads=%d, which may change results by rounding",
            run,
            now,
        )
    elif before != now:
        logger.warning(
            "%s was trained with run.threads=%d and resumes with %d: results differ by rounding "
            "from those of a run without a change",
            run,
            before,
            now,
        )


def check_start(method: Method, recipe: Recipe, init_from: Path | None) -> None:
    """Check that a new run can start from `init_from`.

    Raises:
        ValueError: two sources of initial weights, or what the method refuses.
    """
    if init_from is not None and recipe.encoder.init != "scratch":
        raise InputError(
            f"both --init-from {init_from} and encoder.init={recipe.encoder.init}; "
            "allowed: one of them"
        )
    method.check_start(recipe, init_from)


def start_from_run(
    objective: Objective, method: Method, recipe: Recipe, init_from: Path
) -> tuple[str, set[str]]:
    """Load the weights of another run; return its licence note and the subjects it has seen.

    Raises:
        ValueError: the run trained other networks.
    """
    content = checkpoints.load(checkpoints.latest(init_from))
    earlier = parse_earlier(content, method, init_from)
    if earlier.encoder.architecture != recipe.encoder.architecture:
        raise InputError(
            f"{init_from} trained {earlier.encoder.architecture}, this recipe trains "
            f"{recipe.encoder.architecture}; allowed: the same"
        )
    try:
        objective.load_state_dict(content["objective"])
    except RuntimeError as error:
        raise InputError(
            f"the networks of {init_from} and of this recipe differ "
            f"({str(error).splitlines()[1].strip()}); "
            "allowed: the same networks, see the keys of encoder and objective"
        ) from None
    return content["licence"], set(content["subjects"])


def start_from_file(objective: Objective, encoder: EncoderRecipe) -> str:
    """Load the encoder of a weight file; return the licence note that follows from it.

    Raises:
        ValueError: the file holds another architecture, or is one of the Hub without its commit.
    """
    module, report = load_encoder(encoder.init, encoder.card)
    if is_hub_address(encoder.init) and encoder.init != report.file:
        raise InputError(
            f"encoder.init={encoder.init}: without the commit, this recipe could start from other "
            f"weights next time; type encoder.init={report.file}"
        )
    if report.architecture != encoder.architecture:
        cards = [c.name for c in CARDS.values() if c.architecture == encoder.architecture]
        other = f", or encoder.card={cards[0]} if the file fits that" if cards else ""
        raise InputError(
            f"encoder.init holds {report.architecture}, the recipe asks for "
            f"{encoder.architecture}; type encoder.architecture={report.architecture}{other}"
        )
    objective.load_encoder(module)
    licence = licence_of_derivative(report)
    logger.warning("starts from %s: the result is %s", report.file, licence)
    return licence
