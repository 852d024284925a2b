"""Image files decoded inside a graph, against Pillow, and the files that cannot be."""

from __future__ import annotations

import functools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from maskx_tf.export import decode, headers
from maskx_tf.masks.rgb import read_image
from maskx_tf.ops.images import letterbox
from tests.export.exported import encoded, picture

CANVAS = (64, 64)
LETTERBOX = functools.partial(letterbox, canvas=CANVAS, short_side=64, long_side=64)
PIXELS = picture(30, 50) // 2 + np.random.default_rng(0).integers(0, 100, (30, 50, 3), np.uint8)
IMAGE = Image.fromarray(PIXELS)


@functools.cache
def graph() -> Any:
    read = functools.partial(decode.from_files, letterbox=LETTERBOX, canvas=CANVAS, max_pixels=10**6)
    return tf.function(read, input_signature=[tf.TensorSpec([None], tf.string)])


def turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    exif[271] = "a camera"
    return encoded(IMAGE, kind, exif=exif)


def big_endian(orientation: int) -> bytes:
    """A JPEG file whose EXIF block is written in the other byte order."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    block = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + b"\0\0\0\0"
    data = encoded(IMAGE, "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


GOOD = {
    **{f"{kind} {way}": turned(kind, way) for kind in ("JPEG", "PNG") for way in range(1, 9)},
    "big endian": big_endian(6),
    **{f"PNG {mode}": encoded(IMAGE.convert(mode)) for mode in ("L", "LA", "RGBA", "P", "1")},
    "PNG of 16 bits": encoded(Image.fromarray(np.random.default_rng(0).integers(0, 65536, (30, 50)).astype(np.uint16))),
    "grey JPEG": encoded(IMAGE.convert("L"), "JPEG"),
    "CMYK": encoded(IMAGE.convert("CMYK"), "JPEG"),
    "progressive": encoded(IMAGE, "JPEG", progressive=True, quality=60),
    "subsampled": encoded(IMAGE, "JPEG", subsampling=2),
    "large": encoded(picture(150, 130)),
    "1x1": encoded(PIXELS[:1, :1]),
    "20000x10": encoded(Image.new("RGB", (20000, 10), "red"), "JPEG"),
}


def test_pixels_are_those_of_predict(tmp_path) -> None:
    found = graph()(tf.constant(list(GOOD.values())))
    assert set(found.status.numpy()) == {b"ok"}
    for index, (name, data) in enumerate(GOOD.items()):
        (tmp_path / "image").write_bytes(data)
        image = read_image(tmp_path / "image")
        pixels, size = LETTERBOX(tf.constant(image))
        np.testing.assert_array_equal(found.pixels[index], pixels, err_msg=name)
        np.testing.assert_array_equal(found.sizes[index], size, err_msg=name)
        np.testing.assert_array_equal(found.original_sizes[index], image.shape[:2], err_msg=name)


def png_of(width: int, height: int) -> bytes:
    """A PNG file that claims a size, and has pixels of one row."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (3 * min(width, 100) + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG file that claims another size than it has."""
    data = bytearray(encoded(IMAGE, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


WHOLE = encoded(IMAGE, "JPEG")
BAD = [
    (b"", "empty: no bytes"),
    (b"hello, this is text", "not_an_image"),
    (np.random.default_rng(0).bytes(1000), "not_an_image"),
    (encoded(IMAGE, "GIF"), "not_an_image"),
    (encoded(IMAGE, "BMP"), "not_an_image"),
    (WHOLE[: len(WHOLE) // 2], "broken"),
    (WHOLE[:3], "broken"),
    (encoded(IMAGE)[:100], "broken"),
    (encoded(IMAGE)[:8], "broken"),
    (png_of(0, 5), "broken"),
    (png_of(20, 20), "broken"),
    (b"\xff\xd8\xff" + b"\xff" * 5000, "broken"),
    (png_of(50000, 50000), "too_large: expected at most 1000000 pixels, found 50000 x 50000 pixels"),
    (jpeg_of(50000, 50000), "too_large: expected at most 1000000 pixels, found 50000 x 50000 pixels"),
    (png_of(2**31 - 1, 2**31 - 1), "too_large"),
    (png_of(2**31 + 5, 2**31 + 5), "too_large"),
    (png_of(70000, 10), "too_large"),
]


def test_bad_files_say_why_and_harm_nobody() -> None:
    good = tf.constant([GOOD["1x1"], *(data for data, _ in BAD), GOOD["large"]])
    found = graph()(good)
    for (data, expected), status in zip(BAD, found.status[1:-1].numpy(), strict=True):
        assert status.decode().startswith(expected), (data[:40], status)
    assert not found.pixels[1:-1].numpy().any()
    assert found.status[0] == found.status[-1] == b"ok"
    alone = graph()(good[-1:])
    np.testing.assert_array_equal(found.pixels[-1], alone.pixels[0])


def test_every_file_of_a_batch_may_be_bad() -> None:
    assert graph()(tf.constant([b"a", b""])).pixels.shape == (2, *CANVAS, 3)


def test_a_declared_size_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoder(contents: tf.Tensor, **options: Any) -> tf.Tensor:
        with tf.control_dependencies([tf.debugging.Assert(False, ["decoded"])]):
            return tf.zeros([1, 1, 3], tf.uint8)

    monkeypatch.setattr(tf.io, "decode_png", decoder)
    read = tf.function(functools.partial(decode._read, letterbox=LETTERBOX, canvas=CANVAS, max_pixels=10**6))
    assert read(tf.constant(png_of(50000, 50000)))[3].numpy().startswith(b"too_large")
    with pytest.raises(tf.errors.InvalidArgumentError, match="decoded"):
        read(tf.constant(png_of(50, 50)))


def test_headers_of_damaged_files_never_fail() -> None:
    read = tf.function(headers.read, input_signature=[tf.TensorSpec([], tf.string)])
    rng = np.random.default_rng(0)
    for index in range(200):
        data = bytearray((turned("JPEG", 6), turned("PNG", 6), big_endian(3))[index % 3])
        for at in rng.integers(2, 160, rng.integers(1, 6)):
            data[at] = rng.integers(0, 256)
        found = read(bytes(data[: rng.integers(1, len(data))] if index % 2 else data))
        assert 1 <= found.orientation <= 8


def test_pixels_of_one_size() -> None:
    images = np.stack([picture(20, 31, seed) for seed in range(3)])
    found = decode.from_pixels(tf.constant(images), letterbox=LETTERBOX, canvas=CANVAS)
    for index, image in enumerate(images):
        pixels, size = LETTERBOX(tf.constant(image))
        np.testing.assert_array_equal(found.pixels[index], pixels)
        np.testing.assert_array_equal(found.sizes[index], size)
    none = decode.from_pixels(tf.zeros([2, 0, 5, 3], tf.uint8), letterbox=LETTERBOX, canvas=CANVAS)
    assert set(none.status.numpy()) == {b"empty: no pixels"}
