"""Self-supervised pretraining of encoders on brain MRI, exact to resume."""
