"""Image files in, rows of a table out: for jobs of many images, in any number of processes."""

from __future__ import annotations

import errno
import functools
import io
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from maskx_tf.checkpoints import io as checkpoints
from maskx_tf.checkpoints.folder import find
from maskx_tf.config import load as load_config
from maskx_tf.errors import BadInput, reason
from maskx_tf.files import Json, open_regular
from maskx_tf.masks.paste import paste_crop
from maskx_tf.masks.results import keypoints_of
from maskx_tf.masks.rle import Rle, encode_crop
from maskx_tf.models.inference import Predictor
from maskx_tf.ops import images as image_ops
from maskx_tf.prediction.images import letterbox_for, pixels_of
from maskx_tf.structures import PASTE_MODES, Detections

OK = "ok"
MISSING = "missing"  # the first word of the status of a file that is not there
# What is wrong with one file; any other error of a disk concerns all of them.
ABSENT = (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)
PIXELS_OF_A_BATCH = 2**21  # two canvases of 800 x 1216: a larger batch of these is no faster on a CPU
LARGEST_BATCH = 4  # more take no less time an image, and 260 MB each for the pooled regions (benchmarks/batch.py)
GRAPH_FILE = "saved_model.pb"
SIGNATURE = "serving_default"

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


class ImageRow(NamedTuple):
    """What was found in an image.

    Attributes:
        key: the name that the caller gave the image.
        status: "ok", or a word, a colon and the reason why the image could not be read; then nothing was found.
        height: of the image as people see it; 0 if it could not be read.
        width: like height.
        boxes: float32 [D, 4], x1, y1, x2, y2 in pixels of the image; best first.
        scores: float32 [D].
        classes: int64 [D], the data set's ids, or 1..K for a model that does not know them.
        names: of the classes, D of them.
        masks: D run-length masks of the whole image, in COCO's compressed form; None if there are none.
        keypoints: float32 [D, P, 3], x and y in pixels of the image, and a score; None for a model without.
    """

    key: str
    status: str
    height: int
    width: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    names: tuple[str, ...]
    masks: list[Rle] | None = None
    keypoints: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Segmenter:
    """Finds and segments objects in image files. It may be pickled: each process opens the model when it first asks.

    A file that is no image, or a broken one, gives a row with a status. Files are read and decoded in threads while
    the model computes. Rows do not depend on the machine's threads, but may depend in the last bits on which images
    share a batch.

    Attributes:
        model: a run, checkpoint or model folder, or one version of an exported SavedModel.
        score: detections from this score on; None for the model's own threshold.
        batch: images that are computed at a time; None for as many as suit the model's canvas.
    """

    model: str | os.PathLike[str]
    score: float | None = None
    batch: int | None = None

    def __call__(self, images: Iterable[tuple[str, bytes | Path]]) -> Iterator[ImageRow]:
        """Yields a row for each image, in order. A few batches are in memory at a time.

        Args:
            images: a key and the bytes of an image file, or its path, for each image.

        Raises:
            BadInput: the model cannot be opened, or a disk fails.
        """
        engine = _opened(os.fspath(self.model), self.score, _stamp(self.model))
        size = self.batch or engine.batch
        readers, computers = ThreadPoolExecutor(), ThreadPoolExecutor(engine.streams)
        try:
            read = _ahead(readers, engine.read, images, 2 * size)
            answers = _ahead(computers, engine.compute, _in_batches(read, size), engine.streams)
            for batch in answers:  # masks are pasted here, while the next batch is computed
                yield from (answer.row(self.score or 0.0) for answer in batch)
        finally:
            for pool in (readers, computers):
                pool.shutdown(cancel_futures=True)


class _Read(NamedTuple):
    """An image on its way to the model.

    Attributes:
        key: see `ImageRow`.
        status: see `ImageRow`.
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


class _Answer(NamedTuple):
    """What a model says of an image.

    Attributes:
        key: see `ImageRow`.
        status: see `ImageRow`.
        size: height and width of the image.
        found: without padding, in pixels of the image; None for an image that could not be read.
        names: of the detected classes.
        paste: see `masks.paste.paste_crop`.
    """

    key: str
    status: str
    size: tuple[int, int] = (0, 0)
    found: Detections | None = None
    names: tuple[str, ...] = ()
    paste: str = "continuous"

    def row(self, score: float) -> ImageRow:
        """The row of this answer, with the detections from a score on."""
        if self.found is None:
            nothing = np.zeros([0], np.float32)
            return ImageRow(self.key, self.status, 0, 0, nothing.reshape(0, 4), nothing, nothing.astype(np.int64), ())
        kept = np.flatnonzero(self.found.scores >= score)
        boxes, masks = self.found.boxes[kept], None
        if self.found.masks is not None:
            masks = [
                encode_crop(paste_crop(mask, box, *self.size, mode=self.paste), *self.size)
                for mask, box in zip(self.found.masks[kept], boxes, strict=True)
            ]
        points = keypoints_of(self.found)
        names = tuple(self.names[index] for index in kept)
        classes = self.found.classes[kept]
        return ImageRow(
            self.key,
            OK,
            *self.size,
            boxes,
            self.found.scores[kept],
            classes,
            names,
            masks,
            None if points is None else points[kept],
        )


class _Engine(Protocol):
    """A model in this process.

    Attributes:
        batch: how many images suit its canvas.
        streams: how many batches it computes at a time.
    """

    batch: int
    streams: int

    def read(self, item: tuple[str, bytes | Path]) -> _Read:
        """The image of a key and its bytes or path, as far as it can be prepared in a thread."""
        ...

    def compute(self, images: Sequence[_Read]) -> list[_Answer]:
        """The answers for a batch, in order."""
        ...


def _stamp(path: str | os.PathLike[str]) -> tuple[tuple[int, int, int], ...]:
    """What changes when the files of a model are replaced, such as by further training."""
    folder = Path(path) if Path(path, GRAPH_FILE).exists() else find(path)
    facts = (file.stat() for file in sorted(folder.rglob("*")) if file.is_file())
    return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in facts)


@functools.lru_cache(maxsize=1)  # a process works with one model at a time
def _opened(path: str, score: float | None, stamp: tuple[tuple[int, int, int], ...]) -> _Engine:
    del stamp  # part of the key alone
    return _Exported(path) if Path(path, GRAPH_FILE).exists() else _Folder(path, score)


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

    def read(self, item: tuple[str, bytes | Path]) -> _Read:
        key, source = item
        try:
            pixels = _decoded(_contents(source), self._most)
        except _Unreadable as problem:
            return _Read(key, str(problem))
        canvas, size = self._letterbox(tf.constant(pixels))
        height, width = pixels.shape[:2]
        return _Read(key, canvas=canvas, size=size, original=(height, width))

    def compute(self, images: Sequence[_Read]) -> list[_Answer]:
        whole = [image for image in images if image.status == OK]
        found = iter(self._detect(whole) if whole else ())
        return [next(found) if image.status == OK else _Answer(image.key, image.status) for image in images]

    def _detect(self, images: Sequence[_Read]) -> Iterator[_Answer]:
        sizes = tf.stack([image.size for image in images])
        originals = tf.constant([image.original for image in images], tf.float32)
        found = self._predictor.detect(tf.stack([image.canvas for image in images]), sizes)
        found = found._replace(boxes=image_ops.to_original(found.boxes, sizes, originals))
        if found.keypoints is not None:
            found = found._replace(keypoints=image_ops.points_to_original(found.keypoints, sizes, originals))
        valid = found.valid.numpy()
        arrays = [None if part is None else part.numpy() for part in found]
        for index, image in enumerate(images):
            one = Detections(*(None if part is None else part[index][valid[index]] for part in arrays))
            names = tuple(self._names[number - 1] for number in one.classes)
            one = one._replace(classes=self._ids[one.classes - 1])
            yield _Answer(image.key, OK, image.original, one, names, self._paste)


class _Exported:
    """A SavedModel of `maskx export`, which decodes JPEG and PNG files itself.

    Two batches are computed at a time, so that one is decoded while the other goes through the network.
    """

    streams = 2

    def __init__(self, path: str) -> None:
        config = load_config(Path(path, "assets", "config.yaml"))
        self.batch = batch_for(config.model.input.canvas)
        self._model = tf.saved_model.load(path)  # it owns the constants of its signatures, so it has to stay
        if SIGNATURE not in self._model.signatures:
            raise BadInput(f"{path}: expected a SavedModel with the signature {SIGNATURE}, which takes image files")

    def read(self, item: tuple[str, bytes | Path]) -> _Read:
        key, source = item
        try:
            return _Read(key, data=_contents(source))
        except _Unreadable as problem:
            return _Read(key, str(problem))

    def compute(self, images: Sequence[_Read]) -> list[_Answer]:
        # Without bytes, a file that is not there gets a status of the graph, which its own replaces.
        outputs = self._model.signatures[SIGNATURE](image_bytes=tf.constant([image.data for image in images]))
        arrays = {name: value.numpy() for name, value in outputs.items()}
        return [
            self._answer(image.key, {name: value[index] for name, value in arrays.items()})
            if image.status == OK
            else _Answer(image.key, image.status)
            for index, image in enumerate(images)
        ]

    def _answer(self, key: str, values: Json) -> _Answer:
        status = values["image_status"].decode()
        if status != OK:
            return _Answer(key, status)
        height, width = (int(side) for side in values["image_info"][:2])
        count = int(values["num_detections"])
        boxes = values["detection_boxes"][:count, [1, 0, 3, 2]] * np.array([width, height] * 2, np.float32)
        masks = values.get("detection_masks")
        points = values.get("detection_keypoints")
        found = Detections(
            boxes,
            values["detection_scores"][:count],
            values["detection_classes"][:count].astype(np.int64),
            np.ones(count, bool),
            None if masks is None else masks[:count] / np.float32(255),
            None if points is None else points[:count, :, ::-1] * np.array([width, height], np.float32),
            None if points is None else values["detection_keypoint_scores"][:count],
        )
        names = tuple(name.decode() for name in values["detection_class_names"][:count])
        return _Answer(key, OK, (height, width), found, names, PASTE_MODES[int(values["image_info"][4])])


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
    """The pixels of an image file that holds at most so many."""
    if not data:
        raise _Unreadable("empty: no bytes")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > most:
                found = f"{image.width} x {image.height} pixels"
                raise _Unreadable(f"too_large: expected at most {most} pixels, found {found}")
            return pixels_of(image)
    except UnidentifiedImageError:
        raise _Unreadable("not_an_image: expected an image file") from None
    except _Unreadable:
        raise
    except Exception as error:  # the decoders raise errors of any type, such as struct.error
        raise _Unreadable(f"broken: {reason(error)}") from None


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[InputT], OutputT], items: Iterable[InputT], depth: int
) -> Iterator[OutputT]:
    """Yields a function's results in order, while the pool works on the next so many."""
    waiting: deque[Future[OutputT]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _in_batches(items: Iterable[InputT], size: int) -> Iterator[list[InputT]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
