"""Measures models: average precision over classes with masks and without, and baselines."""
