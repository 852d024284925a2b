"""Rows of image files: the same as asking for one image at a time, whatever the batch, the source and the process."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from maskx_tf.errors import BadInput
from maskx_tf.masks.paste import paste
from maskx_tf.masks.rle import bitmap_of
from maskx_tf.prediction import engines
from maskx_tf.prediction.engines import batch_for
from maskx_tf.prediction.images import ImagePredictor
from maskx_tf.prediction.rows import OK, ImageRow
from maskx_tf.prediction.segmenter import Segmenter
from tests.export.exported import CATEGORY_IDS, SIZES, encoded, exported, model, model_folder, picture
from tests.models.small import predict_eagerly

IMAGES = [(f"{index}.png", encoded(picture(*size, seed=index))) for index, size in enumerate(SIZES)]
NAMES = dict(zip(CATEGORY_IDS, ("cat", "dog", "horse"), strict=True))
BROKEN = [
    ("no bytes", b"", "empty: no bytes"),
    ("text", b"no image at all", "not_an_image: expected"),
    ("half", IMAGES[0][1][: len(IMAGES[0][1]) // 2], "broken: "),
]


def ask(images: list[tuple[str, bytes | Path]], **options: object) -> list[ImageRow]:
    return list(Segmenter(model_folder(), **options)(images))


def assert_same(rows: list[ImageRow], expected: list[ImageRow]) -> None:
    assert [row[:4] for row in rows] == [row[:4] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row.classes, other.classes)
        np.testing.assert_allclose(row.scores, other.scores, atol=1e-4)
        np.testing.assert_allclose(row.boxes, other.boxes, atol=1e-2)


def test_rows_are_what_the_model_says_of_each_image() -> None:
    predictor = ImagePredictor(*model())
    rows = ask(IMAGES, batch=3)
    assert [row.key for row in rows] == [key for key, _ in IMAGES]
    for row, size, index in zip(rows, SIZES, range(len(SIZES)), strict=True):
        found = predictor(picture(*size, seed=index))
        assert row.status == OK
        assert (row.height, row.width) == size
        assert len(found.boxes) == len(row.boxes) > 0
        np.testing.assert_allclose(row.boxes, found.boxes, atol=1e-2)
        np.testing.assert_allclose(row.scores, found.scores, atol=1e-4)
        np.testing.assert_array_equal(row.classes, np.array(CATEGORY_IDS)[found.classes - 1])
        assert row.names == tuple(NAMES[number] for number in row.classes)
        masks = np.array([bitmap_of(mask) for mask in row.masks])
        assert np.mean(masks != paste(found.masks, found.boxes, *size)) < 1e-3


@pytest.mark.slow
def test_a_savedmodel_gives_the_same_rows() -> None:
    broken = [(key, data) for key, data, _ in BROKEN]
    rows = list(Segmenter(exported(), batch=2)([*broken[:1], *IMAGES, *broken[1:]]))
    assert [row.status.split(":")[0] for row in rows] == ["empty", OK, OK, OK, OK, "not_an_image", "broken"]
    assert_same(rows[1:5], ask(IMAGES))
    for row, other in zip(rows[1:5], ask(IMAGES), strict=True):
        assert row.names == other.names
        # A level of 255 may fall on the other side of one half.
        pairs = zip(row.masks, other.masks, strict=True)
        assert np.mean([np.mean(bitmap_of(one) != bitmap_of(two)) for one, two in pairs]) < 1e-2


def test_a_score_below_that_of_a_savedmodel_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^score: expected at least 0\.05, below which \S+ drops detections, found 0$"):
        next(Segmenter(exported(), score=0.0)(IMAGES))


def test_a_broken_image_is_a_row(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(IMAGES[1][1])
    images = [IMAGES[0], *((key, data) for key, data, _ in BROKEN), ("gone", tmp_path / "gone"), ("photo", file)]
    rows = ask(images, batch=2)
    assert [row.key for row in rows] == [key for key, _ in images]
    for row, (_, _, status) in zip(rows[1:4], BROKEN, strict=True):
        assert row.status.startswith(status)
        assert (row.height, row.width, len(row.boxes), row.masks) == (0, 0, 0, None)
    assert rows[4].status == "missing: No such file or directory"
    assert rows[5].status == OK
    assert_same([rows[0], rows[5]._replace(key=IMAGES[1][0])], ask(IMAGES[:2]))


def test_a_disk_that_fails_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(engines, "open_regular", fail)
    with pytest.raises(BadInput, match=r"a\.png: cannot be read: Input/output error"):
        ask([("a", tmp_path / "a.png")])


def test_an_image_of_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "upright_rgb", lambda image: pytest.fail("decoded"))
    with pytest.raises(engines._Unreadable, match="too_large: expected at most 4000 pixels, found 64 x 64 pixels"):
        engines._decoded(IMAGES[0][1], 4000)


def test_few_images_are_in_memory_at_a_time() -> None:
    taken = 0

    def images() -> object:
        nonlocal taken
        for _ in range(40):
            taken += 1
            yield IMAGES[0]

    rows = Segmenter(model_folder(), batch=2)(images())
    next(rows)
    assert taken <= 12
    threads = threading.active_count()
    rows.close()
    assert threading.active_count() < threads


def in_process(pickled: bytes) -> ImageRow:
    return next(pickle.loads(pickled)([IMAGES[1]]))


def test_another_process_opens_the_model_itself() -> None:
    mine = Segmenter(model_folder())
    assert_same([in_process(pickle.dumps(mine))], ask(IMAGES[1:2]))
    assert len(pickle.dumps(mine)) < 1000


@pytest.mark.slow
def test_a_spawned_process_gives_the_same_row() -> None:
    mine = Segmenter(model_folder())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert_same([pool.apply(in_process, [pickle.dumps(mine)])], ask(IMAGES[1:2]))


def test_a_model_that_was_replaced_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Nothing:
        batch = streams = 1
        read = compute = None  # no image asks for them

        def __init__(self, path: str, score: float | None) -> None:
            opened.append(path)

    monkeypatch.setattr(engines, "_Folder", Nothing)
    (tmp_path / "model.json").write_text("1")
    mine = Segmenter(tmp_path)
    assert [*mine([]), *mine([])] == []
    assert len(opened) == 1
    (tmp_path / "new").write_text("2")
    (tmp_path / "new").replace(tmp_path / "model.json")
    assert list(mine([])) == []
    assert len(opened) == 2


def test_no_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        next(Segmenter(tmp_path / "none")(IMAGES))


def test_a_batch_suits_the_canvas() -> None:
    assert [batch_for(canvas) for canvas in ((64, 64), (512, 512), (800, 1216), (1600, 2432))] == [4, 4, 2, 1]


def test_a_score_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    predict_eagerly(monkeypatch)
    every = ask(IMAGES)
    score = float(np.median(np.concatenate([row.scores for row in every])))
    kept = ask(IMAGES, score=score)
    for row, few in zip(every, kept, strict=True):
        count = int((row.scores >= score).sum())
        np.testing.assert_array_equal(few.boxes, row.boxes[:count])
        assert few.masks == row.masks[:count]
    assert 0 < sum(len(row.boxes) for row in kept) < sum(len(row.boxes) for row in every)
