"""The table of objectives: a name in a recipe, and the class that it means."""

from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.methods.braindino.objective import BrainDino

OBJECTIVES: dict[str, type[Objective]] = {"braindino": BrainDino}


def make_objective(recipe: Recipe) -> Objective:
    """The objective that `recipe.objective.method` names."""
    return OBJECTIVES[recipe.objective.method](recipe)
