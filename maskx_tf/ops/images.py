"""Images on their way into the network: letterboxed onto a canvas, normalised, and boxes brought back."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from maskx_tf.ops import boxes as box_ops

# Added to a side before it is rounded down. exact: keeps a side that is whole in exact arithmetic. torchvision (from
# 0.16 on): the product in float64 is not changed.
ROUNDINGS = {"exact": 1e-6, "torchvision": 0.0}


def letterbox(
    image: tf.Tensor, *, canvas: tuple[int, int], short_side: int, long_side: int, rounding: str = "exact"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Resizes an image with `resize_to_fit` and puts it into the top left corner of a canvas.

    Training, evaluation, prediction and export all see canvases of whole levels: bytes take a quarter of the memory of
    floats on the way to the device, and whole levels are equal in all four to the bit.

    Args:
        image: [h, w, 3] in 0..255, any number type.
        canvas: height and width.
        short_side: the short side in pixels.
        long_side: the long side in pixels.
        rounding: "exact" or "torchvision".

    Returns:
        uint8 [height, width, 3], zeros beyond the image, and float32 [2], height and width of the image in it.
    """
    pixels = resize_to_fit(image, canvas=canvas, short_side=short_side, long_side=long_side, rounding=rounding)
    return place(pixels, canvas), tf.cast(tf.shape(pixels)[:2], tf.float32)


def resize_to_fit(
    image: tf.Tensor, *, canvas: tuple[int, int], short_side: int, long_side: int, rounding: str = "exact"
) -> tf.Tensor:
    """Resizes an image, keeping its shape: float32 [h', w', 3].

    The scale is the largest with a short side of at most `short_side`, a long side of at most `long_side`, and the
    canvas around both. Sides are rounded down.

    Args:
        image: [h, w, 3], any number type.
        canvas: height and width.
        short_side: the short side in pixels.
        long_side: the long side in pixels.
        rounding: "exact" or "torchvision".
    """
    size = tf.cast(tf.shape(image)[:2], tf.float64)
    scale = tf.minimum(short_side / tf.reduce_min(size), long_side / tf.reduce_max(size))
    scale = tf.minimum(scale, tf.reduce_min(tf.constant(canvas, tf.float64) / size))
    return resize(image, tf.maximum(tf.cast(tf.floor(size * scale + ROUNDINGS[rounding]), tf.int32), 1))


def resize(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The image in another size int32 [2], height and width: float32, bilinear, without antialiasing."""
    # Cast last: a large photograph of floats would take four times the memory of its bytes.
    return tf.cast(tf.image.resize(image, size, method="bilinear", antialias=False), tf.float32)


def place(image: tf.Tensor, canvas: tuple[int, int]) -> tf.Tensor:
    """An image [h, w, 3] in 0..255 at the top left of a canvas of zeros: uint8 [height, width, 3], rounded."""
    height, width = canvas
    shape = tf.shape(image)
    # As a matrix, which is padded ten times as fast.
    rows = tf.reshape(tf.cast(tf.round(image), tf.uint8), [shape[0], shape[1] * 3])
    padded = tf.pad(rows, [[0, height - shape[0]], [0, (width - shape[1]) * 3]])
    return tf.reshape(padded, [height, width, 3])


def check_canvas(images: tf.Tensor, *, multiple: int) -> None:
    """Refuses images [B, H, W, 3] on which the levels of a network would not fit each other.

    Args:
        images: images with a static height and width.
        multiple: what height and width have to be multiples of.

    Raises:
        ValueError: see above.
    """
    height, width = images.shape[1], images.shape[2]
    if height is None or width is None:
        raise ValueError(
            f"images: expected a height and a width that are known when the graph is traced, found {images.shape}; "
            "give tf.function an input signature with both, such as [None, 640, 640, 3]"
        )
    if height % multiple or width % multiple:
        raise ValueError(
            f"images: expected a height and a width that are multiples of {multiple}, found {height} x {width}"
        )


def normalise(
    images: tf.Tensor, image_sizes: tf.Tensor, *, mean: Sequence[float], std: Sequence[float], bgr: bool
) -> tf.Tensor:
    """Subtracts the mean and divides by the deviation, channel by channel; zero beyond each image.

    Args:
        images: RGB canvases [B, H, W, 3] in 0..255.
        image_sizes: float32 [B, 2], height and width of the image in each canvas.
        mean: the mean, in the network's order of channels.
        std: like mean.
        bgr: the network's order is blue, green, red.
    """
    pixels = tf.cast(images, tf.float32)
    if bgr:
        pixels = pixels[..., ::-1]
    pixels = (pixels - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)
    return blank_beyond(pixels, image_sizes)


def blank_beyond(images: tf.Tensor, image_sizes: tf.Tensor) -> tf.Tensor:
    """Canvases [B, H, W, 3] with zeros beyond each image, whose sizes are float32 [B, 2]."""
    rows = tf.range(images.shape[1], dtype=tf.float32)[None, :] < image_sizes[:, 0:1]
    columns = tf.range(images.shape[2], dtype=tf.float32)[None, :] < image_sizes[:, 1:2]
    return tf.where((rows[:, :, None] & columns[:, None, :])[..., None], images, tf.zeros([], images.dtype))


def to_original(boxes: tf.Tensor, image_sizes: tf.Tensor, original_sizes: tf.Tensor) -> tf.Tensor:
    """Boxes [B, N, 4] from canvas pixels to those of the original images; both sizes float32 [B, 2]."""
    ratio = original_sizes / image_sizes
    return box_ops.denormalise(boxes, ratio[:, None, 0], ratio[:, None, 1])


def points_to_original(points: tf.Tensor, image_sizes: tf.Tensor, original_sizes: tf.Tensor) -> tf.Tensor:
    """Points [B, N, P, 2], x and y, as `to_original` does it."""
    return points * (original_sizes / image_sizes)[:, None, None, ::-1]


def from_original(boxes: tf.Tensor, image_sizes: tf.Tensor, original_sizes: tf.Tensor) -> tf.Tensor:
    """The inverse of `to_original`."""
    return to_original(boxes, original_sizes, image_sizes)
