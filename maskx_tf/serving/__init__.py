"""A client that needs no TensorFlow, and a local server that speaks TF Serving's protocols."""
