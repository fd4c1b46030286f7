"""What representations look like: alignment of two encoders, similarity of patches."""
