"""Models that answer for image files, one batch after the other: of a model folder, or of an export."""

from __future__ import annotations

import errno
import functools
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from maskx_tf.checkpoints import folder as model_folder
from maskx_tf.checkpoints import io as checkpoints
from maskx_tf.errors import BadInput, reason
from maskx_tf.files import open_regular
from maskx_tf.masks.outputs import detections_of
from maskx_tf.masks.rgb import upright_rgb
from maskx_tf.models.inference import Predictor
from maskx_tf.ops import images as image_ops
from maskx_tf.prediction.images import letterbox_for
from maskx_tf.prediction.rows import OK, EngineAnswer
from maskx_tf.protocol.messages import SERVING_DEFAULT
from maskx_tf.structures import PASTE_MODES

MISSING = "missing"  # the first word of the status of a file that is not there
# What is wrong with one file; any other error of a disk concerns all of them.
ABSENT = (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)
PIXELS_OF_A_BATCH = 2**21  # two canvases of 800 x 1216: a larger batch of these is no faster on a CPU
LARGEST_BATCH = 4  # more take no less time an image, and 260 MB each for the pooled regions (benchmarks/batch.py)


class ReadImage(NamedTuple):
    """An image on its way to the model.

    Attributes:
        key: see `rows.ImageRow`.
        status: see `rows.ImageRow`.
        data: the file's bytes, for a model that decodes them.
        canvas: uint8 [H, W, 3], for one that does not.
        size: float32 [2], height and width inside the canvas.
        original: height and width of the image.
    """

    key: str
    status: str = OK
    data: bytes = b""
    canvas: tf.Tensor = None
    size: tf.Tensor = None
    original: tuple[int, int] = (0, 0)


class ImageEngine(Protocol):
    """A model in this process.

    Attributes:
        batch: how many images suit its canvas.
        streams: how many batches it computes at a time.
    """

    batch: int
    streams: int

    def read(self, item: tuple[str, bytes | Path]) -> ReadImage:
        """The image of a key and its bytes or path, as far as it can be prepared in a thread."""
        ...

    def compute(self, images: Sequence[ReadImage]) -> list[EngineAnswer]:
        """The answers for a batch, in order."""
        ...


def open_engine(path: str | os.PathLike[str], score: float | None) -> ImageEngine:
    """The model of a path; the one that was asked for last stays open as long as its files are the same.

    Raises:
        BadInput: it cannot be opened.
    """
    folder = Path(path) if Path(path, model_folder.GRAPH).exists() else model_folder.find(path)
    facts = (file.stat() for file in sorted(folder.rglob("*")) if file.is_file())
    return _opened(os.fspath(path), score, tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in facts))


@functools.lru_cache(maxsize=1)  # a process works with one model at a time
def _opened(path: str, score: float | None, stamp: tuple[tuple[int, int, int], ...]) -> ImageEngine:
    del stamp  # part of the key alone: it changes when the files are replaced, such as by further training
    return _Exported(path, score) if Path(path, model_folder.GRAPH).exists() else _Folder(path, score)


class _Folder:
    """The model of a run or model folder. Any image that Pillow reads will do."""

    streams = 1

    def __init__(self, path: str, score: float | None) -> None:
        loaded = checkpoints.open_model(path)
        model = loaded.config.model
        self.batch = batch_for(model.input.canvas)
        self._most = loaded.config.export.max_pixels
        self._predictor = Predictor(loaded.model, model.input.canvas, score=score)
        sides = model.input.short_side, model.input.long_side
        # Traced here: threads that first call it at the same moment would each trace it.
        self._letterbox = letterbox_for(model.input.canvas, *sides, model.input.rounding).get_concrete_function()
        self._paste = model.detections.paste
        self._names = model.class_names
        self._ids = np.array(loaded.meta.get("category_ids") or range(1, len(self._names) + 1), np.int64)

    def read(self, item: tuple[str, bytes | Path]) -> ReadImage:
        key, source = item
        try:
            pixels = _decoded(_contents(source), self._most)
        except _Unreadable as problem:
            return ReadImage(key, str(problem))
        canvas, size = self._letterbox(tf.constant(pixels))
        height, width = pixels.shape[:2]
        return ReadImage(key, canvas=canvas, size=size, original=(height, width))

    def compute(self, images: Sequence[ReadImage]) -> list[EngineAnswer]:
        whole = [image for image in images if image.status == OK]
        found = iter(self._detect(whole) if whole else ())
        return [next(found) if image.status == OK else EngineAnswer(image.key, image.status) for image in images]

    def _detect(self, images: Sequence[ReadImage]) -> Iterator[EngineAnswer]:
        sizes = tf.stack([image.size for image in images])
        originals = tf.constant([image.original for image in images], tf.float32)
        found = self._predictor.detect(tf.stack([image.canvas for image in images]), sizes)
        found = found._replace(boxes=image_ops.to_original(found.boxes, sizes, originals))
        if found.keypoints is not None:
            found = found._replace(keypoints=image_ops.points_to_original(found.keypoints, sizes, originals))
        found = found.mapped(lambda array: array.numpy())
        for index, image in enumerate(images):
            one = found.mapped(itemgetter((index, found.valid[index])))
            names = tuple(self._names[number - 1] for number in one.classes)
            one = one._replace(classes=self._ids[one.classes - 1])
            yield EngineAnswer(image.key, OK, image.original, one, names, self._paste)


class _Exported:
    """A SavedModel of `maskx export`, which decodes JPEG and PNG files itself.

    Two batches are computed at a time, so that one is decoded while the other goes through the network.
    """

    streams = 2

    def __init__(self, path: str, score: float | None) -> None:
        config = model_folder.open_export(path, score)
        self.batch = batch_for(config.model.input.canvas)
        self._model = tf.saved_model.load(path)  # it owns the constants of its signatures, so it has to stay
        if SERVING_DEFAULT not in self._model.signatures:
            raise BadInput(f"{path}: expected the signature {SERVING_DEFAULT}, which takes image files, found none")

    def read(self, item: tuple[str, bytes | Path]) -> ReadImage:
        key, source = item
        try:
            return ReadImage(key, data=_contents(source))
        except _Unreadable as problem:
            return ReadImage(key, str(problem))

    def compute(self, images: Sequence[ReadImage]) -> list[EngineAnswer]:
        # Without bytes, a file that is not there gets a status of the graph, which its own replaces.
        outputs = self._model.signatures[SERVING_DEFAULT](image_bytes=tf.constant([image.data for image in images]))
        arrays = {name: value.numpy() for name, value in outputs.items()}
        return [
            self._answer(image.key, arrays, index) if image.status == OK else EngineAnswer(image.key, image.status)
            for index, image in enumerate(images)
        ]

    def _answer(self, key: str, arrays: Mapping[str, np.ndarray], index: int) -> EngineAnswer:
        status = arrays["image_status"][index].decode()
        if status != OK:
            return EngineAnswer(key, status)
        height, width, *_, mode = map(int, arrays["image_info"][index])
        found = detections_of(arrays, index)
        names = tuple(name.decode() for name in arrays["detection_class_names"][index][: len(found.valid)])
        found = found._replace(classes=found.classes.astype(np.int64))
        return EngineAnswer(key, OK, (height, width), found, names, PASTE_MODES[mode])


class _Unreadable(Exception):
    """An image that cannot be read; the message is its status."""


def batch_for(canvas: tuple[int, int]) -> int:
    """How many canvases of this height and width are computed at a time."""
    return max(1, min(PIXELS_OF_A_BATCH // (canvas[0] * canvas[1]), LARGEST_BATCH))


def _contents(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        with open_regular(source) as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, OSError) and error.errno not in ABSENT:
            raise BadInput(f"{source}: cannot be read: {reason(error)}") from None
        raise _Unreadable(f"{MISSING}: {reason(error)}") from None


def _decoded(data: bytes, most: int) -> NDArray[np.uint8]:
    """Returns the pixels of an image file; refuses one with more than a given number."""
    if not data:
        raise _Unreadable("empty: no bytes")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > most:
                found = f"{image.width} x {image.height} pixels"
                raise _Unreadable(f"too_large: expected at most {most} pixels, found {found}")
            return upright_rgb(image)
    except UnidentifiedImageError:
        raise _Unreadable("not_an_image: expected an image file") from None
    except _Unreadable:
        raise
    except Exception as error:  # the decoders raise errors of any type, such as struct.error
        raise _Unreadable(f"broken: {reason(error)}") from None
