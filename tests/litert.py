"""Functions in LiteRT's own operators: what converting one and running it gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.export.freeze import Frozen


def converted(function: Callable[..., dict[str, tf.Tensor]], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the converted function gives; conversion fails where an operator is not builtin."""
    interpreter = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="ai-edge-litert (the extra litert) is missing"
    )
    signature = {name: tf.TensorSpec(value.shape, value.dtype, name) for name, value in inputs.items()}
    frozen = Frozen(lambda *values: function(**dict(zip(inputs, values, strict=True))), list(signature.values()))
    # The frozen graph has lost the names of its inputs.
    named = tf.function(lambda **given: frozen(*(given[name] for name in inputs)), autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([named.get_concrete_function(**signature)], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    runner = interpreter.Interpreter(model_content=converter.convert()).get_signature_runner()
    return runner(**inputs)
