"""BrainDINO: DINO and iBOT with KoLeo on multi-crop views of slices."""
