"""Self-supervised pretraining of encoders on axial brain MRI: BrainDINO's two stages, exact to resume."""
