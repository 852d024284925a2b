"""How good a model is: average precision over classes with masks and without, baselines, and a report to look at."""
