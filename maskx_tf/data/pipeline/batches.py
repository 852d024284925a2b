"""From images in any order to batches: shuffled, varied and endless for training; whole and in order for evaluation.

The position of each image in training, and its variation, depend only on the seed, the epoch and the image. So a run
that starts at a later step sees the same batches as a run that began at step 0, without reading the earlier images, and
several workers read their parts of the batches that a single worker would make.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf.config.data import DataConfig
from maskx_tf.config.detector import InputConfig
from maskx_tf.data.pipeline import colours, transforms
from maskx_tf.data.pipeline.copy_paste import choose, paste
from maskx_tf.data.pipeline.examples import Examples
from maskx_tf.data.pipeline.sample import Sample, blank, drop_tiny, first, pad
from maskx_tf.data.threads import cores
from maskx_tf.errors import BadInput
from maskx_tf.ops import images as image_ops

Batch = dict[str, tf.Tensor]
# Each step has its own random stream, so that switching one on does not change the others.
WINDOW, FLIP, COLOUR, PASTE, PARTNER, CHOICE = range(6)


def training(
    examples: Examples,
    data: DataConfig,
    model_input: InputConfig,
    *,
    batch: int,
    start: int = 0,
    worker: int = 0,
    workers: int = 1,
    devices: int = 1,
) -> tf.data.Dataset:
    """Endless batches, equal whenever the arguments are; docs/pipeline.md lists their fields.

    Args:
        examples: the images.
        data: how they are varied.
        model_input: the canvas.
        batch: images a step, over all workers.
        start: the step of the first batch; it is what a run from step 0 has there.
        worker: the number of this worker, from 0 on.
        workers: how many there are; worker i gets the i-th part of each batch.
        devices: the number of devices of this worker; its part comes in as many pieces, one after the other.

    Raises:
        BadInput: there is no image, or the workers cannot share a batch.
    """
    if not examples.total:
        raise BadInput(f"{examples.name}: expected images to learn from, found none")
    share = share_of(batch, worker, workers)

    def one(step_and_place: tf.Tensor) -> Batch:
        position = _position(step_and_place, batch, share, worker)
        epoch = position // examples.total
        index = tf.numpy_function(
            lambda at: order(examples.total, data.seed, int(at) // examples.total)[int(at) % examples.total],
            [position],
            tf.int64,
        )
        return varied_entry(examples, data, model_input, tf.ensure_shape(index, []), epoch)

    counter = tf.data.Dataset.range(start * share, np.iinfo(np.int64).max)
    return batched(counter, one, share_of(share, 0, devices, "devices"), data.workers)


def evaluation(
    examples: Examples,
    data: DataConfig,
    model_input: InputConfig,
    *,
    batch: int,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Each image once, in order and as it is; the last batch is filled up with black ones that are not valid.

    Arguments and errors are those of `training`.
    """
    share = share_of(batch, worker, workers)
    steps = -(-examples.total // batch)

    def one(step_and_place: tf.Tensor) -> Batch:
        position = _position(step_and_place, batch, share, worker)
        return tf.cond(
            position < examples.total,
            lambda: _as_it_is(examples, data, model_input, position),
            lambda: _filling(examples, model_input.canvas, data.max_instances),
        )

    return batched(tf.data.Dataset.range(steps * share), one, share, data.workers)


@contextmanager
def bad_input() -> Iterator[None]:
    """Raises the BadInput that was raised in one of TensorFlow's threads, which report it as another error."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"BadInput: ([^\n]*)", error.message)
        if found is None:
            raise
        raise BadInput(found[1]) from None


@functools.lru_cache(maxsize=8)  # neighbouring epochs are read at a time
def order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """In which order the images of an epoch are read: int64 [count]."""
    return np.random.RandomState([seed, epoch]).permutation(count).astype(np.int64)


def share_of(batch: int, worker: int, workers: int, what: str = "workers") -> int:
    """Returns the number of images of each batch that a worker, or each of its devices, gets."""
    if not 0 <= worker < workers:
        raise ValueError(f"worker {worker} of {workers}")
    if batch % workers:
        raise BadInput(f"train.batch: expected a multiple of {workers}, the number of {what}, found {batch}")
    return batch // workers


def _position(step_and_place: tf.Tensor, batch: int, share: int, worker: int) -> tf.Tensor:
    """The position, counted over all workers, of the n-th image that this worker reads."""
    return step_and_place // share * batch + worker * share + step_and_place % share


def _seed(seed: int, epoch: tf.Tensor | int, index: tf.Tensor) -> tf.Tensor:
    """The seed, int32 [2], of how an image is varied in an epoch."""
    first = tf.stack([tf.constant(seed, tf.uint32), tf.cast(epoch, tf.uint32)])
    return tf.random.experimental.stateless_fold_in(tf.bitcast(first, tf.int32), tf.cast(index, tf.int32))


def varied_entry(
    examples: Examples, data: DataConfig, model_input: InputConfig, index: tf.Tensor, epoch: tf.Tensor | int = 0
) -> Batch:
    """Returns an image, varied for training, as an entry of a batch."""
    seed = _seed(data.seed, epoch, index)
    number, sample = examples.read(index)
    original = tf.shape(sample.image)[:2]
    sample, size = _on_canvas(sample, data, model_input, seed)
    if data.copy_paste > 0.0:
        draw = tf.random.stateless_uniform([], _stream(seed, PASTE))
        sample = tf.cond(
            draw < data.copy_paste,
            lambda: _pasted(sample, size, examples, data, model_input, seed),
            lambda: sample,
        )
    return _entry(number, pad(drop_tiny(sample), data.max_instances), size, original, model_input.canvas)


def _on_canvas(sample: Sample, data: DataConfig, model_input: InputConfig, seed: tf.Tensor) -> tuple[Sample, tf.Tensor]:
    """The varied image on its canvas, and its size int32 [2] there."""
    sample = first(sample, data.max_instances)
    window, size = transforms.random_window(
        tf.shape(sample.image)[:2],
        _stream(seed, WINDOW),
        least=data.crop,
        jitter=data.scale_jitter,
        canvas=model_input.canvas,
        short_side=model_input.short_side,
        long_side=model_input.long_side,
        rounding=model_input.rounding,
    )
    if data.crop < 1.0 or data.scale_jitter[1] > 1.0:
        sample = transforms.crop(sample, window)
    if data.flip:
        sample = transforms.random_flip(sample, _stream(seed, FLIP))
    strengths = dict(data.photometric)
    if any(strengths.values()):

        def dyed(given: Sample) -> Sample:
            return given.with_image(colours.recolour(given.image, _stream(seed, COLOUR), **strengths))

        # Before or after resizing, where there are fewer pixels: 12 million pixels are not converted to floats.
        sample = tf.cond(
            tf.reduce_prod(tf.shape(sample.image)[:2]) <= tf.reduce_prod(size),
            lambda: transforms.resize(dyed(sample), size),
            lambda: dyed(transforms.resize(sample, size)),
        )
    else:
        sample = transforms.resize(sample, size)
    return sample.with_image(image_ops.place(sample.image, model_input.canvas)), size


def _pasted(
    sample: Sample,
    size: tf.Tensor,
    examples: Examples,
    data: DataConfig,
    model_input: InputConfig,
    seed: tf.Tensor,
) -> Sample:
    """The image with instances of another one, drawn at random and varied by itself, on top."""
    stream = _stream(seed, PARTNER)
    partner = tf.random.stateless_uniform([], stream, 0, examples.total, tf.int64)
    other, _ = _on_canvas(examples.read(partner)[1], data, model_input, stream)
    other = drop_tiny(transforms.cut(other, tf.concat([[0, 0], size], axis=0)))
    room = data.max_instances - tf.reduce_sum(tf.cast(sample["valid"], tf.int32))
    return paste(sample, other, choose(other, _stream(seed, CHOICE), room))


def _as_it_is(examples: Examples, data: DataConfig, model_input: InputConfig, index: tf.Tensor) -> Batch:
    """An image for evaluation, letterboxed."""
    number, sample = examples.read(index)
    original = tf.shape(sample.image)[:2]
    pixels, size = image_ops.letterbox(
        sample.image,
        canvas=model_input.canvas,
        short_side=model_input.short_side,
        long_side=model_input.long_side,
        rounding=model_input.rounding,
    )
    sample = transforms.scale(sample, size / tf.cast(original, tf.float32)).with_image(pixels)
    return _entry(number, pad(sample, data.max_instances), size, original, model_input.canvas)


def _filling(examples: Examples, canvas: tuple[int, int], limit: int) -> Batch:
    """Returns the sample that fills up a batch: a black image of the canvas' size that is not valid."""
    sample = blank(canvas, examples.fields, limit)
    entry = _entry(tf.constant(-1, tf.int64), sample, tf.constant(canvas), tf.constant(canvas), canvas)
    return entry | {"image_valid": tf.constant(0, tf.uint8)}


def _entry(number: tf.Tensor, sample: Sample, size: tf.Tensor, original: tf.Tensor, canvas: tuple[int, int]) -> Batch:
    """One image as an entry of a batch: neither bool nor text, which do not pass through a distribution strategy."""
    return {
        "images": tf.ensure_shape(sample.image, [*canvas, 3]),
        "image_sizes": tf.cast(size, tf.float32),
        "original_sizes": tf.cast(original, tf.float32),
        "image_ids": number,
        "image_valid": tf.constant(1, tf.uint8),
        **{field.key: _portable(sample[field.name]) for field in sample.fields},
    }


def _portable(value: tf.Tensor) -> tf.Tensor:
    """The value, with bytes in place of bools."""
    return tf.cast(value, tf.uint8) if value.dtype == tf.bool else value


def steady() -> tf.data.Options:
    """Options of a data set that keeps its order, and does without a thread that tunes it.

    When an iterator is deleted, it may have to wait for that thread, which wakes once a minute.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    return options


def batched(counter: tf.data.Dataset, one: Callable[..., Batch], share: int, workers: int) -> tf.data.Dataset:
    """Returns batches of as many images as a share has, of which a function makes each of an element."""
    plain = tf.autograph.experimental.do_not_convert(one)  # there is no Python on tensors to convert, which takes long
    entries = counter.map(plain, num_parallel_calls=workers or cores(), deterministic=True)
    options = steady()
    # Each worker already reads its own part; TensorFlow would divide that again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return entries.batch(share, drop_remainder=True).prefetch(2).with_options(options)


def _stream(seed: tf.Tensor, step: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, step)
