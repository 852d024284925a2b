"""A model made independent of this package: SavedModels for TF Serving, LiteRT models for devices."""
