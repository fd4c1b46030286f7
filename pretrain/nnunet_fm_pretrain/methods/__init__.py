"""Pretraining methods, one folder each."""
