"""The choice of proposals of FCIS: none from the map's incomplete last cells."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from maskx_tf.models.proposals import ProposalChoice, RpnOutputs
from maskx_tf.ops import sampling
from maskx_tf.structures import Proposals

# Below every logit of a network: its sigmoid is 0.
NEVER_LOGIT = -1e9


class WholeCells(NamedTuple):
    """A filter of proposals that leaves out cells which reach beyond the image.

    Attributes:
        filter: chooses among the others.
        stride: pixels a cell.
    """

    filter: ProposalChoice
    stride: int

    def choose(self, outputs: RpnOutputs, image_sizes: tf.Tensor) -> Proposals:
        """The best regions of each image."""
        (logits,), (anchors,) = outputs.logits, outputs.anchors
        whole = (tf.floor(image_sizes / self.stride) * self.stride)[:, None, ::-1]  # width and height of whole cells
        centres = 0.5 * (anchors[:, :2] + anchors[:, 2:])
        inside = tf.reduce_all(centres < whole, axis=-1)
        outputs = outputs._replace(logits=[tf.where(inside, logits, NEVER_LOGIT)])
        found = self.filter.choose(outputs, image_sizes)
        valid = found.valid & (found.scores > 0.0)
        return Proposals(sampling.where_flagged(valid, found.boxes), sampling.where_flagged(valid, found.scores), valid)
