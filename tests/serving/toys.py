"""Models of one operation, for what does not depend on the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf


def write_toy(folder: Path, number: int) -> Path:
    """A version that adds its number to x after as many rounds of work as x says, so that it can be slow."""

    class Toy(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "x")])
        def add(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            rounds = tf.cast(tf.reduce_max(x), tf.int32)
            spent = tf.while_loop(
                lambda step, _: step < rounds,
                lambda step, matrix: (step + 1, tf.linalg.matmul(matrix, matrix) / 64.0),
                (0, tf.ones([64, 64])),
            )[1]
            return {"y": x + number + 0.0 * spent[0, 0]}

    toy = Toy()
    path = folder / str(number)
    unfinished = folder / f".{number}"
    tf.saved_model.save(toy, str(unfinished), signatures={"serving_default": toy.add})
    unfinished.rename(path)
    return path


def x(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.float32(values)[:, None]}
