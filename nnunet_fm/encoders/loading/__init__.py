"""The strict loader: from a weight file to an encoder."""
