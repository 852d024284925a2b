"""The proposal stage of FCIS: two logits an anchor, and no proposals from the map's incomplete last cells."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from maskx_tf.losses import Loss
from maskx_tf.models.proposals import ProposalChoice, ProposalStage, RpnOutputs
from maskx_tf.structures import Proposals, Targets

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
        return Proposals(tf.where(valid[..., None], found.boxes, 0.0), tf.where(valid, found.scores, 0.0), valid)


class PositionProposals(ProposalStage):
    """Finds regions on the first of two maps."""

    def outputs(self, features: list[tf.Tensor]) -> RpnOutputs:
        return super().outputs(features[:1])

    def losses(self, outputs: RpnOutputs, image_sizes: tf.Tensor, truth: Targets, seed: tf.Tensor) -> dict[str, Loss]:
        found = super().losses(outputs, image_sizes, truth, seed)
        box = found["loss_rpn_box"]
        # The box loss is divided by the size of the sample, even where there are fewer anchors.
        count = tf.cast(tf.shape(image_sizes)[0] * self.sampler.size, tf.float32)
        return {**found, "loss_rpn_box": Loss(box.total, count)}
