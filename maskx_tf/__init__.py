"""Instance segmentation for classes that have boxes but no masks.

    import maskx_tf as mx

    found = mx.predict("runs/first", "photo.jpg")

docs/python.md describes these names. They are imported when they are first used, so that `import maskx_tf` alone takes
no time and does without TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskx_tf.config import load as load_config
    from maskx_tf.config.data import Source
    from maskx_tf.errors import BadInput
    from maskx_tf.prediction.segmenter import Segmenter
    from maskx_tf.structures import Detections
    from maskx_tf.tasks.evaluate import evaluate
    from maskx_tf.tasks.export import export_saved_model
    from maskx_tf.tasks.models import load
    from maskx_tf.tasks.predict import predict
    from maskx_tf.tasks.train import train

__version__ = "0.1.0"

__all__ = [
    "BadInput",
    "Detections",
    "Segmenter",
    "Source",
    "evaluate",
    "export_saved_model",
    "load",
    "load_config",
    "predict",
    "train",
]

# Where each name comes from: the module and, in it, the name.
_ORIGINS = {
    "BadInput": ("maskx_tf.errors", "BadInput"),
    "Detections": ("maskx_tf.structures", "Detections"),
    "Segmenter": ("maskx_tf.prediction.segmenter", "Segmenter"),
    "Source": ("maskx_tf.config.data", "Source"),
    "evaluate": ("maskx_tf.tasks.evaluate", "evaluate"),
    "export_saved_model": ("maskx_tf.tasks.export", "export_saved_model"),
    "load": ("maskx_tf.tasks.models", "load"),
    "load_config": ("maskx_tf.config", "load"),
    "predict": ("maskx_tf.tasks.predict", "predict"),
    "train": ("maskx_tf.tasks.train", "train"),
}


if not TYPE_CHECKING:  # if type checkers saw this function, they would accept any name

    def __getattr__(name: str) -> object:
        if name not in _ORIGINS:
            raise AttributeError(f"module 'maskx_tf' has no attribute {name!r}")
        module, attribute = _ORIGINS[name]
        value = getattr(import_module(module), attribute)
        globals()[name] = value  # from now on Python finds it without this function
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
