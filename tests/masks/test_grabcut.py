"""GrabCut of boxes in made-up pictures."""

from __future__ import annotations

import numpy as np
import pytest

from maskx_tf.masks import grabcut

pytest.importorskip("cv2", reason="the extra grabcut is not installed")


def scene(height: int = 90, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A red disc with noise on green with noise; the picture, and the disc's pixels."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    disc = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 4) ** 2
    noise = np.random.default_rng(0).integers(0, 60, [height, width, 3])
    return (np.where(disc[..., None], [190, 40, 40], [20, 150, 60]) + noise).astype(np.uint8), disc


def whole(crop: grabcut.Crop, height: int, width: int) -> np.ndarray:
    image = np.zeros([height, width], bool)
    image[crop.top : crop.top + crop.pixels.shape[0], crop.left : crop.left + crop.pixels.shape[1]] = crop.pixels
    return image


@pytest.mark.parametrize("scale", [0.25, 1, 6])
def test_an_object_that_differs_from_its_surroundings_is_found(scale: float) -> None:
    image, disc = scene(round(90 * scale), round(120 * scale))  # others than the middle one are resized for GrabCut
    box = np.array([36, 21, 84, 69]) * scale
    found = whole(grabcut.segment(image, [box])[0], *disc.shape)
    assert (found & disc).sum() / (found | disc).sum() > (0.95 if scale >= 1 else 0.85)
    assert not found[:, : int(box[0])].any()
    assert not found[int(box[3]) + 1 :].any()


def test_the_answer_is_the_same_each_time() -> None:
    image, _ = scene()
    boxes = [[30.2, 20.7, 90.1, 70.0], [0.0, 0.0, 50.0, 40.0], [30.2, 20.7, 90.1, 70.0]]
    first, second = grabcut.segment(image, boxes), grabcut.segment(image, boxes[::-1])[::-1]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(first[0].pixels, first[2].pixels)


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        ([0, 0, 120, 90], (90, 120)),  # no surroundings
        ([-10, -10, 130, 100], (90, 120)),
        ([60, 40, 60.2, 70], (30, 0)),  # no pixel
        ([130, 10, 140, 20], (10, 0)),  # beside the image
        ([119, 89, 121, 91], (1, 1)),
    ],
)
def test_boxes_that_leave_nothing_to_cut(box, shape) -> None:
    crop = grabcut.segment(scene()[0], [box])[0]
    assert crop.pixels.shape == shape
    assert crop.pixels.all()
    assert whole(crop, 90, 120).shape == (90, 120)


def test_a_speck_is_no_answer() -> None:
    image = np.full([100, 100, 3], 120, np.uint8)
    image[48:53, 48:53] = (250, 20, 20)
    near, far = grabcut.segment(image, [[46, 46, 55, 55], [20, 20, 80, 80]])
    assert 16 <= near.pixels.sum() <= 49  # of 81; resizing blurs its rim
    assert far.pixels.all()


def test_a_plain_image_and_no_box() -> None:
    assert grabcut.segment(np.full([40, 40, 3], 9, np.uint8), [[10, 10, 30, 30]])[0].pixels.any()
    assert grabcut.segment(scene()[0], np.zeros([0, 4])) == []
