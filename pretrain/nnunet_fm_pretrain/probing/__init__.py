"""Probes: linear models on frozen features, compared with random weights and raw pixels."""
