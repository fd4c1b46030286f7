"""Finished and unfinished runs as one page, tables and figures."""
