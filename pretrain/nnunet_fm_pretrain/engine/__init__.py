"""The engine: training loop, contract of methods, optimiser, checkpoints.

It knows no method by name.
"""
