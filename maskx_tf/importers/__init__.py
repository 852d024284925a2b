"""Reads the weights of other programs into our models."""
