"""Published weights by name: where they are, their download, and the cache.

The addresses are those of the projects' own tables. torchvision's file names end with the first eight digits of the
file's SHA-256; detectron2 publishes no checksum, so that only the size of its files is checked.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from maskx_tf.errors import BadInput, did_you_mean, reason
from maskx_tf.files import append, write_bytes, writing
from maskx_tf.locks import locked

TORCHVISION_URL = "https://download.pytorch.org/models/"
DETECTRON2_URL = "https://dl.fbaipublicfiles.com/detectron2/"
TORCHVISION_FILES = {
    "fasterrcnn_resnet50_fpn": "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
    "maskrcnn_resnet50_fpn": "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
    "keypointrcnn_resnet50_fpn": "keypointrcnn_resnet50_fpn_coco-fc266e95.pth",
    "keypointrcnn_resnet50_fpn_legacy": "keypointrcnn_resnet50_fpn_coco-9f466800.pth",
}
# The models of detectron2's zoo that the importer can read: the folder and the file below the model's name.
DETECTRON2_FILES = {
    "COCO-Detection/faster_rcnn_R_50_C4_1x": "137257644/model_final_721ade.pkl",
    "COCO-Detection/faster_rcnn_R_50_DC5_1x": "137847829/model_final_51d356.pkl",
    "COCO-Detection/faster_rcnn_R_50_FPN_1x": "137257794/model_final_b275ba.pkl",
    "COCO-Detection/faster_rcnn_R_50_C4_3x": "137849393/model_final_f97cb7.pkl",
    "COCO-Detection/faster_rcnn_R_50_DC5_3x": "137849425/model_final_68d202.pkl",
    "COCO-Detection/faster_rcnn_R_50_FPN_3x": "137849458/model_final_280758.pkl",
    "COCO-Detection/faster_rcnn_R_101_C4_3x": "138204752/model_final_298dad.pkl",
    "COCO-Detection/faster_rcnn_R_101_DC5_3x": "138204841/model_final_3e0943.pkl",
    "COCO-Detection/faster_rcnn_R_101_FPN_3x": "137851257/model_final_f6e8b1.pkl",
    "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x": "139173657/model_final_68b088.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x": "137259246/model_final_9243eb.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x": "137260150/model_final_4f86c3.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": "137260431/model_final_a54504.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x": "137849525/model_final_4ce675.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x": "137849551/model_final_84107b.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x": "137849600/model_final_f10217.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_101_C4_3x": "138363239/model_final_a2914c.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_101_DC5_3x": "138363294/model_final_0464b7.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x": "138205316/model_final_a3ec72.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x": "139653917/model_final_2d9806.pkl",
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x": "137261548/model_final_04e291.pkl",
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x": "137849621/model_final_a6e10b.pkl",
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_3x": "138363331/model_final_997cc7.pkl",
    "COCO-Keypoints/keypoint_rcnn_X_101_32x8d_FPN_3x": "139686956/model_final_5ad38f.pkl",
}
NAMED_WEIGHTS = re.compile(r"(torchvision|detectron2):(.+)")
ATTEMPTS = 5  # each continues where the connection broke
BLOCK_BYTES = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
ByteReport = Callable[[int, int], None]


class PublishedFile(NamedTuple):
    """A file that a project publishes.

    Attributes:
        program: the importer that reads it.
        url: the address of the file.
        sha256: the first digits of its checksum; empty where the project publishes none.
    """

    program: str
    url: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file lies in the cache, once it is there."""
        return cache() / "downloads" / self.program / self.url.rpartition("/")[2]


def cache() -> Path:
    """The folder for downloads and for models made of them: MASKX_HOME, or maskx in the user's cache folder."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("MASKX_HOME") or os.path.join(caches, "maskx"))


def names() -> list[str]:
    """Every name of published weights."""
    return [f"torchvision:{name}" for name in TORCHVISION_FILES] + [f"detectron2:{name}" for name in DETECTRON2_FILES]


def lookup(name: str) -> PublishedFile:
    """The file of a name such as torchvision:maskrcnn_resnet50_fpn.

    Raises:
        BadInput: there is no such name.
    """
    if name not in names():
        raise BadInput(f"{name}: no published weights of this name are known{did_you_mean(name, names())}")
    program, _, model = name.partition(":")
    if program == "torchvision":
        file = TORCHVISION_FILES[model]
        return PublishedFile(program, TORCHVISION_URL + file, re.sub(r".*-(\w+)\.pth", r"\1", file))
    return PublishedFile(program, f"{DETECTRON2_URL}{model}/{DETECTRON2_FILES[model]}", "")


def fetch(file: PublishedFile, report: ByteReport = lambda done, total: None) -> Path:
    """The path of a published file in the cache, which is downloaded unless it is there.

    An interrupted download continues where it ended, in this call or in a later one.

    Args:
        file: the published file.
        report: receives the bytes that are there and those of the whole file.

    Raises:
        BadInput: it cannot be had, or it is another file than its checksum says.
    """
    path = file.path
    if path.is_file():
        return path
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock"), f"{path}: expected no other download of it"):
        _download(file.url, part, report)
        with part.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if not found.startswith(file.sha256):
            part.unlink()
            raise BadInput(f"{file.url}: expected a file whose SHA-256 begins with {file.sha256}, found {found[:8]}")
        with writing(path):
            part.replace(path)
    return path


def _download(url: str, part: Path, report: ByteReport) -> None:
    """Adds to a partial file what is missing.

    Raises:
        BadInput: the server refuses, or the connection breaks again and again.
    """
    problem = ""
    for _ in range(ATTEMPTS):
        try:
            if _add_rest(url, part, report):
                return
            problem = "the connection broke"
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise BadInput(f"{url}: the server answered {error.code} {error.reason}") from None
            part.unlink(missing_ok=True)  # more than the file has: begin again
        except (OSError, http.client.HTTPException) as error:
            problem = reason(error)
    raise BadInput(f"{url}: cannot be downloaded: {problem}; the same command goes on where it ended")


def _add_rest(url: str, part: Path, report: ByteReport) -> bool:
    """Appends the rest of a file to its beginning; returns whether the file is then complete."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0  # a server that does not know ranges sends the whole file
            write_bytes(part, b"")
        length = answer.headers.get("Content-Length")
        total = done + int(length or 0)
        while block := answer.read(BLOCK_BYTES):
            append(part, block)
            done += len(block)
            report(done, total)
    return length is None or done == total
