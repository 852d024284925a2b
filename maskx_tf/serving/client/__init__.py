"""Asks a server for detections. Needs no TensorFlow.

Example:
    >>> from maskx_tf.serving.client import Client
"""

from maskx_tf.serving.client.answers import Answer
from maskx_tf.serving.client.client import Client, read_tls
from maskx_tf.serving.client.transport import Tls
from maskx_tf.serving.status import ServingError

__all__ = ["Answer", "Client", "ServingError", "Tls", "read_tls"]
