"""Probes: what an encoder is good for, beside random weights and raw pixels."""
