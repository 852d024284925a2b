"""TF Serving's messages and the tensors in them, without TensorFlow: for exports, the client and the server."""
