"""Volumes, geometry, preprocessing, subject tables, sequence names and converters."""
