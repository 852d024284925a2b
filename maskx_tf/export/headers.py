"""Reads the size and orientation of an image file from its header, with TensorFlow operations.

An exported graph has nothing else to read with, and it has to know the size before it decodes: a file of a few bytes
may claim to hold 50000 x 50000 pixels. Nothing here fails: whatever cannot be read is a size of 0.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

EXIF = b"Exif\0\0"
ORIENTATION, SHORT = 0x0112, 3  # EXIF's tag of how the camera was held, and its type
MOST_ENTRIES = 128  # entries of an EXIF directory that are read
MOST_STEPS = 1000  # segments that are read: a file that consists only of segments must not keep a server busy
# Markers of JPEG: start of a frame (C0 to CF, but for the tables at C4 and CC and the reserved C8), those without a
# length, and the first after which nothing interests.
FRAMES = [0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC) for code in range(256)]
BARE = [code == 0x01 or 0xD0 <= code <= 0xD8 for code in range(256)]
START_OF_SCAN, END_OF_IMAGE, APPLICATION_1, FILL = 0xDA, 0xD9, 0xE1, 0xFF


class Header(NamedTuple):
    """Of one image, scalars.

    Attributes:
        is_jpeg: bool, by the first bytes.
        is_png: bool, the same.
        height: int32 as stored, not as turned; 0 if the file does not say.
        width: like height.
        orientation: int32 1..8, EXIF's; 1, upright, if the file does not say.
    """

    is_jpeg: tf.Tensor
    is_png: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    orientation: tf.Tensor


def read(contents: tf.Tensor) -> Header:
    """The header of an image file, a scalar string."""
    is_jpeg = tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff"
    is_png = tf.strings.substr(contents, 0, 8) == b"\x89PNG\r\n\x1a\n"
    # Zeros at the end, so that reading a little past it needs no question.
    raw = tf.cast(tf.concat([tf.io.decode_raw(contents, tf.uint8), tf.zeros([16], tf.uint8)], axis=0), tf.uint8)
    nothing = (tf.constant(0), tf.constant(0), tf.constant(1))
    height, width, orientation = tf.cond(
        is_jpeg, lambda: _jpeg(raw), lambda: tf.cond(is_png, lambda: _png(raw), lambda: nothing)
    )
    return Header(is_jpeg, is_png, height, width, orientation)


def _jpeg(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Height, width and orientation: the segments are walked up to the frame's."""
    end = tf.size(raw) - 16

    def step(
        at: tf.Tensor, height: tf.Tensor, width: tf.Tensor, orientation: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        here = tf.cast(raw[at : at + 10], tf.int32)
        code, length = here[1], here[2] * 256 + here[3]
        is_frame = tf.gather(FRAMES, code)
        is_exif = (code == APPLICATION_1) & tf.reduce_all(raw[at + 4 : at + 10] == list(EXIF))
        stops = (here[0] != FILL) | (code == START_OF_SCAN) | (code == END_OF_IMAGE)
        advance = tf.where(code == FILL, 1, tf.where(tf.gather(BARE, code), 2, length + 2))
        return (
            tf.where(stops, end, at + advance),
            tf.where(is_frame, here[5] * 256 + here[6], height),
            tf.where(is_frame, here[7] * 256 + here[8], width),
            tf.cond(is_exif, lambda: _orientation(raw[at + 10 : at + 2 + length]), lambda: orientation),
        )

    start = (tf.constant(2), tf.constant(0), tf.constant(0), tf.constant(1))
    _, height, width, orientation = tf.while_loop(
        lambda at, height, *_: (at < end) & (height == 0),
        step,
        start,
        parallel_iterations=1,
        maximum_iterations=MOST_STEPS,
    )
    return height, width, orientation


def _png(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Height, width and orientation: chunks are walked up to the first of pixels."""
    end = tf.size(raw) - 16
    sizes = tf.cast(raw[12:24], tf.int64)
    has_size = tf.reduce_all(raw[12:16] == list(b"IHDR"))
    width, height = (tf.where(has_size, _number(sizes[first : first + 4], 4), 0) for first in (4, 8))

    def step(at: tf.Tensor, orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = tf.cast(tf.minimum(_number(tf.cast(raw[at : at + 4], tf.int64), 4), tf.cast(end, tf.int64)), tf.int32)
        name = raw[at + 4 : at + 8]
        is_exif = tf.reduce_all(name == list(b"eXIf"))
        is_last = tf.reduce_all(name == list(b"IDAT")) | tf.reduce_all(name == list(b"IEND"))
        return (
            tf.where(is_last | (length > end - at), end, at + length + 12),
            tf.cond(is_exif, lambda: _orientation(raw[at + 8 : at + 8 + length]), lambda: orientation),
        )

    start = (tf.constant(8), tf.constant(1))
    _, orientation = tf.while_loop(
        lambda at, _: at < end, step, start, parallel_iterations=1, maximum_iterations=MOST_STEPS
    )
    highest = tf.constant(tf.int32.max, tf.int64)
    return tf.cast(tf.minimum(height, highest), tf.int32), tf.cast(tf.minimum(width, highest), tf.int32), orientation


def _orientation(tiff: tf.Tensor) -> tf.Tensor:
    """The orientation that a block of EXIF data, uint8 [n], names in its first directory; else 1."""
    raw = tf.concat([tf.cast(tiff, tf.int64), tf.zeros([10], tf.int64)], axis=0)
    size = tf.size(tiff)
    little = tf.reduce_all(raw[:2] == list(b"II"))

    def number(digits: tf.Tensor, count: int) -> tf.Tensor:
        return _number(tf.where(little, digits[..., ::-1], digits), count)

    first = tf.cast(tf.minimum(number(raw[4:8], 4), tf.cast(size, tf.int64)), tf.int32)
    count = tf.cast(number(raw[first : first + 2], 2), tf.int32)
    count = tf.minimum(tf.minimum(count, (size - first - 2) // 12), MOST_ENTRIES)
    count = tf.maximum(count, 0)
    entries = tf.reshape(raw[first + 2 : first + 2 + 12 * count], [-1, 12])
    fits = (number(entries[:, :2], 2) == ORIENTATION) & (number(entries[:, 2:4], 2) == SHORT)
    found = tf.reduce_max(tf.where(fits, number(entries[:, 8:10], 2), 0))  # of no entries the lowest number
    return tf.cast(tf.where((found >= 1) & (found <= 8), found, 1), tf.int32)


def _number(digits: tf.Tensor, count: int) -> tf.Tensor:
    """Bytes int64 [..., count], highest first, as int64 [...]."""
    return tf.reduce_sum(digits * [256**place for place in reversed(range(count))], axis=-1)
