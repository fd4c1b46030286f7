"""Datasets: converters to nnU-Net's raw format, and the demo data that the program makes itself."""
