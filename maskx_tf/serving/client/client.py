"""Asks a server what is in images, without TensorFlow: TF Serving or `maskx serve`, over gRPC or HTTP.

with Client("localhost:8500", "pets") as client:
    answer = client.detect(Path("photo.jpg").read_bytes())
    print(answer.names, answer.detections.boxes)
    masks = answer.pasted()
    for answer in client.stream(files):
        ...
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from maskx_tf.protocol.messages import IMAGE_TENSOR, SEGMENT_BOXES, SERVING_DEFAULT
from maskx_tf.serving.client.answers import Answer, of_image, output_filter
from maskx_tf.serving.client.transport import Grpc, Rest, Target, Tls, persistently

MAX_BYTES = 256 * 2**20
Image = bytes | NDArray[np.uint8]


class Client:
    """A connection to one model of a server; may be used by several threads.

    Args:
        address: "host:port" for gRPC, "http://host:port" or "https://host:port" for JSON over HTTP.
        model: its name; a `maskx serve` also answers without.
        version: the version's number; None for the newest.
        label: the label of a version, such as "stable", instead of a number.
        timeout: seconds that a request may take, all attempts together.
        retries: how often a request is sent again to a server that is not there, or says that it is unavailable.
        tls: encrypts gRPC; for https certificates other than the system's.
        max_bytes: the largest size of a message, in both directions.

    Raises:
        ValueError: the address is none of these, or a certificate cannot be read.
    """

    def __init__(
        self,
        address: str,
        model: str = "",
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        tls: Tls | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        target = Target(model, version, label)
        if "://" not in address:
            self._transport: Grpc | Rest = Grpc(address, target, tls, max_bytes)
        else:
            scheme, place = _split(address)
            secure = (tls or Tls()) if scheme == "https" else None
            self._transport = Rest(place, target, secure, max_bytes)
        self._timeout, self._retries = timeout, retries

    def detect(self, image: Image, *, parts: Sequence[str] | None = None, timeout: float | None = None) -> Answer:
        """Returns the detections in an image.

        Args:
            image: the bytes of a JPEG or PNG file, or uint8 [H, W, 3].
            parts: what the answer should hold, of boxes, scores, classes, names and masks; None for all there is.
            timeout: seconds, instead of the client's.

        Raises:
            ServingError: there is no answer. An image that cannot be read is one: see `Answer.status`.
        """
        if isinstance(image, np.ndarray):
            return self._ask(IMAGE_TENSOR, {"input_tensor": _pixels(image)[None]}, 1, parts, timeout)[0]
        return self.detect_files([image], parts=parts, timeout=timeout)[0]

    def detect_files(
        self, files: Sequence[bytes], *, parts: Sequence[str] | None = None, timeout: float | None = None
    ) -> list[Answer]:
        """The same for several files in one request."""
        return self._ask(SERVING_DEFAULT, {"image_bytes": _strings(files)}, len(files), parts, timeout)

    def segment(
        self,
        file: bytes,
        boxes: np.ndarray,
        size: tuple[int, int],
        *,
        parts: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Masks of given boxes.

        Args:
            file: a JPEG or PNG file.
            boxes: [N, 4], (x1, y1, x2, y2) in pixels of the image as people see it.
            size: height and width of that image.
            parts: see `detect`.
            timeout: see `detect`.
        """
        height, width = size
        normal = np.asarray(boxes, np.float32)[:, [1, 0, 3, 2]] / np.array([height, width] * 2, np.float32)
        inputs = {"image_bytes": _strings([file]), "boxes": normal[None]}
        return self._ask(SEGMENT_BOXES, inputs, 1, parts, timeout)[0]

    def stream(
        self, images: Iterable[Image], *, concurrency: int = 4, parts: Sequence[str] | None = None
    ) -> Iterator[Answer]:
        """Yields answers in the order of the images; at most `concurrency` images are being processed or waiting."""
        waiting: deque[Future[Answer]] = deque()
        pool = ThreadPoolExecutor(concurrency)
        try:
            for image in images:
                if len(waiting) == concurrency:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(self.detect, image, parts=parts))
            while waiting:
                yield waiting.popleft().result()
        finally:  # a caller that stops early waits only for the requests that are running
            pool.shutdown(cancel_futures=True)

    def states(self) -> dict[int, str]:
        """The versions of the model and their states, such as {3: "AVAILABLE"}."""
        return persistently(self._transport.states, self._timeout, self._retries)

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self,
        signature: str,
        inputs: dict[str, np.ndarray],
        count: int,
        parts: Sequence[str] | None,
        timeout: float | None,
    ) -> list[Answer]:
        wanted = output_filter(None if parts is None else tuple(parts))
        outputs = persistently(
            lambda left: self._transport.predict(signature, inputs, wanted, left),
            self._timeout if timeout is None else timeout,
            self._retries,
        )
        return [of_image(outputs, index) for index in range(count)]


def read_tls(roots: str | None, key: str | None = None, certificate: str | None = None) -> Tls:
    """Encryption from PEM files."""
    return Tls(*(None if path is None else _read(path) for path in (roots, key, certificate)))


def _read(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _split(address: str) -> tuple[str, str]:
    """Scheme, and host with port, of an address that holds nothing else."""
    try:
        parts = urlsplit(address.rstrip("/"))
        HTTPConnection(parts.hostname or "", parts.port)  # which opens nothing, and refuses what is no name or port
        if parts.scheme in ("http", "https") and parts.netloc and parts.geturl() == f"{parts.scheme}://{parts.netloc}":
            return parts.scheme, parts.netloc
    except (ValueError, HTTPException):
        pass
    raise ValueError(f"address {address!r}, expected host:port, http://host:port or https://host:port")


def _pixels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3] or a file's bytes")
    return image


def _strings(files: Sequence[bytes]) -> NDArray[np.object_]:
    array = np.empty(len(files), np.object_)
    array[:] = files
    return array
