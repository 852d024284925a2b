"""Formats of annotation tools, read and written, so that made masks can be corrected by people and come back."""
