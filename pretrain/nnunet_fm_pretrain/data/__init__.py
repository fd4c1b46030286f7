"""Stores of preprocessed volumes, and what fills them."""
