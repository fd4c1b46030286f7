"""The table of objectives: a name in a recipe, and the class that it means."""

from nnunet_fm_pretrain.braindino import BrainDino
from nnunet_fm_pretrain.objective import Objective
from nnunet_fm_pretrain.recipe import Recipe

OBJECTIVES: dict[str, type[Objective]] = {"braindino": BrainDino}


def make_objective(recipe: Recipe) -> Objective:
    """The objective that `recipe.objective.method` names."""
    return OBJECTIVES[recipe.objective.method](recipe)
