"""Copy-paste augmentation: instances of one image on top of another."""

from __future__ import annotations

import tensorflow as tf

from maskx_tf.data.pipeline.sample import Sample, grids_of, tidy
from maskx_tf.data.pipeline.visibility import seen_through
from maskx_tf.ops import masks as mask_ops

MIN_VISIBLE = 0.2  # an instance below is dropped if less than this share of it stays visible


def choose(sample: Sample, seed: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """Every other instance with a mask, at random, at most `room` of them: bool [G]. Crowds are not chosen."""
    drawn = tf.random.stateless_uniform(tf.shape(sample["valid"]), seed) < 0.5
    chosen = drawn & sample["valid"] & sample["has_mask"] & ~sample["crowd"]
    return chosen & (tf.cumsum(tf.cast(chosen, tf.int32)) <= room)


def paste(sample: Sample, other: Sample, chosen: tf.Tensor) -> Sample:
    """Chosen instances of another image on top of this one (Ghiasi et al., Simple Copy-Paste).

    An instance below that is partly hidden keeps what is seen of its mask, and gets the box around that; one that is
    known by its box alone gets the box around what is seen of its box. An instance of which less than MIN_VISIBLE is
    seen is no longer valid. Points that are hidden are no longer there.

    Args:
        sample: its image is uint8, of a size known when tracing.
        other: another sample of the same size, its instances in the part of the canvas that the sample's image takes.
        chosen: bool [G'], which of its instances, all with masks.

    Returns:
        The sample with G + G' instances.
    """
    height, width = sample.image.shape[:2]
    pasted = tidy(other.with_values(valid=chosen))
    grids = tf.cast(grids_of(tf.boolean_mask(other["masks"], chosen)), tf.float32)
    # One after the other: all at once, a hundred would take a hundred images' room.
    cover = tf.foldl(
        lambda cover, one: cover | mask_ops.paste(one[0][None], one[1][None], height, width)[0],
        (grids, tf.boolean_mask(other["boxes"], chosen)),
        tf.zeros([height, width], tf.bool),
    )
    # As arithmetic on bytes, which takes half the time of tf.where.
    image = sample.image + (other.image - sample.image) * tf.cast(cover, tf.uint8)[:, :, None]

    def uncovered(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Whether nothing is pasted on these places."""
        row = tf.clip_by_value(tf.cast(y, tf.int32), 0, height - 1)
        column = tf.clip_by_value(tf.cast(x, tf.int32), 0, width - 1)
        return ~tf.gather(tf.reshape(cover, [-1]), row * width + column)

    below = seen_through(sample, sample["valid"], uncovered, (height, width), least=MIN_VISIBLE)
    both = below.mapped(lambda field, value: tf.concat([value, pasted[field.name]], axis=0))
    return both.with_image(image)
