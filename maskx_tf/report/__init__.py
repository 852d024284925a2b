"""The HTML report of runs and evaluations, and the charts in it."""
