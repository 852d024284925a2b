"""Keras layers that hold the weights: plain keyword arguments in, tensors out."""
