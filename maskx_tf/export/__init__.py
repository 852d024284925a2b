"""Exports models that run without this package: SavedModels for TF Serving, LiteRT and ONNX models for devices."""
