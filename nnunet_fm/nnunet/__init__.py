"""All that knows nnU-Net: plans, trainer, predictor, its files and logs."""
