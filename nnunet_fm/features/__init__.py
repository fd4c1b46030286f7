"""Features of frozen encoders: extracted once per volume, cached, read as a matrix."""

from nnunet_fm.data.subject_table import Table, read_table
from nnunet_fm.features.cache import FeatureCache
from nnunet_fm.features.recipe import FeatureRecipe

__all__ = ["FeatureCache", "FeatureRecipe", "Table", "read_table"]
