"""Instance segmentation for classes that have boxes but no masks."""

__version__ = "0.1.0"
