"""Models behind an address: a client that needs no TensorFlow, and a local server that speaks as TF Serving does."""
