"""Reads and writes formats of annotation tools, so that people can correct made masks."""
