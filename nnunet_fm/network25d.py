"""Alias: plans written by version 0.1 name this module."""

from nnunet_fm.network.slice_stack import FrozenEncoder25DNetwork

__all__ = ["FrozenEncoder25DNetwork"]
