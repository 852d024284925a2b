"""Masks on the host, in NumPy: crops, pasting and run lengths. Nothing here needs TensorFlow."""
