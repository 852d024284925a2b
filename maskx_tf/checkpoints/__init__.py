"""Weights on disk: model folders, importers for the files of other programs, and surgery on the vocabulary."""
