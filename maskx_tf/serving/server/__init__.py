"""A local server that speaks TF Serving's protocols."""
