"""Reading MRI volumes and preparing them, the same for pretraining and for features."""
