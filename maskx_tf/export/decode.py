"""Decodes image files to canvases inside a graph; a bad file does not harm the others of its batch.

TensorFlow's decoders fail for the whole batch. Here each image is an element of a small `tf.data` pipeline that drops
what fails; what is missing at its end was broken. Pixels are those of `masks.rgb.read_image`: turned upright, grey
repeated, transparency dropped, of 16 bits the upper 8.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from maskx_tf.export import headers

OK = "ok"
BROKEN = "broken: the image cannot be decoded"
EMPTY = "empty: no pixels"
NO_IMAGE = "not_an_image: expected a JPEG or PNG file"
MAX_SIDE = 65535  # the highest that a JPEG file can name
# `ops.images.letterbox`, its settings filled in.
Letterbox = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Canvases(NamedTuple):
    """A batch of images, ready for the network.

    Attributes:
        pixels: uint8 [B, H, W, 3]; zeros for an image that could not be read.
        sizes: float32 [B, 2], height and width of the image inside its canvas; ones for one that could not be read.
        original_sizes: float32 [B, 2] of the image as people see it; zeros for one that could not be read.
        status: string [B], "ok", or a word, a colon and the reason.
    """

    pixels: tf.Tensor
    sizes: tf.Tensor
    original_sizes: tf.Tensor
    status: tf.Tensor


def from_files(contents: tf.Tensor, *, letterbox: Letterbox, canvas: tuple[int, int], max_pixels: int) -> Canvases:
    """Canvases of image files, string [B]."""
    count = tf.size(contents, out_type=tf.int64)
    read = functools.partial(_read, letterbox=letterbox, canvas=canvas, max_pixels=max_pixels)
    files = tf.data.Dataset.from_tensor_slices((tf.range(count), contents))
    whole = files.map(lambda index, file: (index, *read(file)), num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    # One more element, so that there always is one, for all that are missing.
    missing = tf.data.Dataset.from_tensors((count, *_nothing(tf.constant(BROKEN), canvas)))
    index, *parts = whole.concatenate(missing).batch(count + 1).get_single_element()
    last = tf.size(index) - 1
    rows = tf.tensor_scatter_nd_update(tf.fill([count + 1], last), index[:, None], tf.range(last + 1))[:-1]
    pixels, sizes, originals, status = (tf.gather(part, rows) for part in parts)
    return Canvases(tf.ensure_shape(pixels, [None, *canvas, 3]), sizes, originals, status)


def from_pixels(images: tf.Tensor, *, letterbox: Letterbox, canvas: tuple[int, int]) -> Canvases:
    """Canvases of images of one size, uint8 [B, h, w, 3]."""
    shape = tf.shape(images)

    def one(image: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (*letterbox(image), tf.cast(shape[1:3], tf.float32), tf.constant(OK))

    def none() -> Canvases:
        pixels, *rest = _nothing(tf.constant(EMPTY), canvas)
        return Canvases(*(tf.repeat(part[None], shape[0], axis=0) for part in (pixels, *rest)))

    wanted = (
        tf.TensorSpec([*canvas, 3], tf.uint8),
        tf.TensorSpec([2], tf.float32),
        tf.TensorSpec([2], tf.float32),
        tf.TensorSpec([], tf.string),
    )
    found = tf.cond(
        tf.reduce_min(shape[1:3]) > 0,
        lambda: Canvases(*tf.map_fn(one, images, fn_output_signature=wanted)),
        none,
    )
    return found._replace(pixels=tf.ensure_shape(found.pixels, [None, *canvas, 3]))


def _read(
    contents: tf.Tensor, *, letterbox: Letterbox, canvas: tuple[int, int], max_pixels: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The parts of `Canvases` for one file; fails where the decoder does."""
    header = headers.read(contents)
    height, width = tf.cast(header.height, tf.int64), tf.cast(header.width, tf.int64)
    fits = (height * width <= max_pixels) & (tf.maximum(height, width) <= MAX_SIDE)
    found = [tf.strings.as_string(width), " x ", tf.strings.as_string(height), " pixels"]
    too_large = tf.strings.join([f"too_large: expected at most {max_pixels} pixels, found ", *found])
    problem = tf.where(
        ~(header.is_jpeg | header.is_png),
        NO_IMAGE,
        tf.where(tf.minimum(height, width) < 1, BROKEN, tf.where(fits, OK, too_large)),
    )
    problem = tf.where(tf.strings.length(contents) == 0, "empty: no bytes", problem)

    def decoded() -> tuple[tf.Tensor, ...]:
        image = tf.cond(header.is_jpeg, lambda: _decode_jpeg(contents), lambda: _decode_png(contents))
        upright = _upright(image, header.orientation)
        return (*letterbox(upright), tf.cast(tf.shape(upright)[:2], tf.float32), problem)

    return tf.cond(problem == OK, decoded, lambda: _nothing(problem, canvas))


def _decode_jpeg(contents: tf.Tensor) -> tf.Tensor:
    # The exact transform, which Pillow uses too; the default is TensorFlow's to choose.
    return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_png(contents: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_png(contents, channels=3)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The image turned as EXIF's orientation, 1..8, says that it has to be."""

    def turned(transposed: bool, upside_down: bool, mirrored: bool) -> Callable[[], tf.Tensor]:
        def turn() -> tf.Tensor:
            result = tf.transpose(image, [1, 0, 2]) if transposed else image
            return result[:: -1 if upside_down else 1, :: -1 if mirrored else 1]

        return turn

    ways = [  # of the eight orientations: transposed first, then upside down, then mirrored left to right
        turned(False, False, False),
        turned(False, False, True),
        turned(False, True, True),
        turned(False, True, False),
        turned(True, False, False),
        turned(True, False, True),
        turned(True, True, True),
        turned(True, True, False),
    ]
    return tf.ensure_shape(tf.switch_case(orientation - 1, ways), [None, None, 3])


def _nothing(status: tf.Tensor, canvas: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the placeholder of an image that could not be read."""
    return tf.zeros([*canvas, 3], tf.uint8), tf.ones([2]), tf.zeros([2]), status
