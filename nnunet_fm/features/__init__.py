"""Features of frozen encoders: extracted once per volume, kept in a cache, read as a matrix."""

from nnunet_fm.features.cache import FeatureCache
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.features.table import Table, read_table

__all__ = ["FeatureCache", "FeatureRecipe", "Table", "read_table"]
