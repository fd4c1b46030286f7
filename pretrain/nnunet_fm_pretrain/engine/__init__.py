"""The engine: training loop, method contract, optimiser, checkpoints. It knows no method by name."""
