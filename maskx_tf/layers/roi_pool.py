"""The choice of RoI operation, with the conventions of the checkpoint that it serves."""

from __future__ import annotations

import tensorflow as tf

from maskx_tf.layers.parts import Layer, LayerConfig
from maskx_tf.ops import roi_align as align_ops
from maskx_tf.ops import roi_pool as pool_ops


class RoiPooler(Layer):
    """Pools boxes from the levels that suit their size; no weights.

    Args:
        size: bins along each side.
        strides: pixels a cell of each level, finest first.
        op: "align", "pool" or "warp".
        aligned: half-pixel shift of op "align".
        samples: along each side of a bin, for "align" and "warp"; 0 for as many as the bin is cells long.
        reduce: "average" or "max", for "align" and "warp".
        level_epsilon: see `ops.roi_align.assign_levels`.
        gather: use the form of op "align" that XLA and LiteRT can compile.
    """

    def __init__(
        self,
        size: int,
        *,
        strides: tuple[int, ...],
        op: str = "align",
        aligned: bool = True,
        samples: int = 2,
        reduce: str = "average",
        level_epsilon: str = "torchvision",
        gather: bool = False,
        **kwargs: object,
    ) -> None:
        # Boxes would lose their pixels if Keras cast them to the compute type with the features.
        super().__init__(autocast=False, **kwargs)
        if op not in ("align", "pool", "warp"):
            raise ValueError(f"op is {op!r}, expected one of align, pool, warp")
        if gather and op != "align":
            raise ValueError(f"only op align has a gather form, not {op}")
        self.size = size
        self.strides = tuple(strides)
        self.op = op
        self.aligned = aligned
        self.samples = samples
        self.reduce = reduce
        self.level_epsilon = level_epsilon
        self.gather = gather

    def call(self, features: list[tf.Tensor], boxes: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Features float [B, N, size, size, C] of boxes float32 [B, N, 4] in pixels of the network input."""
        del training
        levels = self._levels(boxes)
        options: LayerConfig = {"strides": self.strides, "size": self.size}
        if self.op == "pool":
            pooled = pool_ops.roi_pool(features, boxes, levels, **options)
        elif self.op == "warp":
            pooled = pool_ops.roi_warp(features, boxes, levels, samples=self.samples, reduce=self.reduce, **options)
        else:
            form = align_ops.roi_align_gather if self.gather else align_ops.roi_align
            pooled = form(
                features, boxes, levels, aligned=self.aligned, samples=self.samples, reduce=self.reduce, **options
            )
        return tf.cast(pooled, self.compute_dtype)

    def _levels(self, boxes: tf.Tensor) -> tf.Tensor:
        if len(self.strides) == 1:
            return tf.zeros_like(boxes[..., 0], tf.int32)
        lowest = self.strides[0].bit_length() - 1
        highest = lowest + len(self.strides) - 1
        return align_ops.assign_levels(boxes, lowest=lowest, highest=highest, epsilon=self.level_epsilon)
