"""Alias: trainers that users derived from the catalogue import `Recipe` from this module."""

from nnunet_fm.nnunet.recipe import Recipe

__all__ = ["Recipe"]
