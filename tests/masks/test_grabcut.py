"""GrabCut of boxes in made-up pictures."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from maskx_tf.errors import BadInput
from maskx_tf.masks import grabcut, paste
from maskx_tf.masks.paste import paste_crop

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
        ([130, 10, 140, 20], (10, 0)),  # outside the image
        ([119, 89, 121, 91], (1, 1)),
    ],
)
def test_boxes_without_surroundings_or_pixels_are_filled(box, shape) -> None:
    crop = grabcut.segment(scene()[0], [box])[0]
    assert crop.pixels.shape == shape
    assert crop.pixels.all()
    assert whole(crop, 90, 120).shape == (90, 120)


def test_a_speck_is_replaced_by_the_filled_box() -> None:
    image = np.full([100, 100, 3], 120, np.uint8)
    image[48:53, 48:53] = (250, 20, 20)
    near, far = grabcut.segment(image, [[46, 46, 55, 55], [20, 20, 80, 80]])
    assert 16 <= near.pixels.sum() <= 49  # of 81; resizing blurs its rim
    assert far.pixels.all()


def test_a_plain_image_and_no_box() -> None:
    assert grabcut.segment(np.full([40, 40, 3], 9, np.uint8), [[10, 10, 30, 30]])[0].pixels.any()
    assert grabcut.segment(scene()[0], np.zeros([0, 4])) == []


DISC_BOX = [36.0, 21.0, 84.0, 69.0]


def coarse(disc: np.ndarray, moved: int = 0) -> np.ndarray:
    """Probabilities [12, 12] over the disc's box, of a mask that is `moved` columns off and unsure of its outline."""
    inside = np.roll(disc, moved, axis=1)[21:69, 36:84].reshape(12, 4, 12, 4).mean(axis=(1, 3))
    return 1 / (1 + np.exp(-4 * (inside - 0.5)))


def iou(found: np.ndarray, disc: np.ndarray) -> float:
    return (found & disc).sum() / (found | disc).sum()


def test_a_predicted_mask_gets_the_outline_of_the_object() -> None:
    image, disc = scene()
    mask = coarse(disc, moved=4)
    before = whole(paste_crop(mask, np.array(DISC_BOX), *disc.shape), *disc.shape)
    assert 0.6 < iou(before, disc) < 0.9
    after = whole(grabcut.refine(image, DISC_BOX, mask), *disc.shape)
    assert iou(after, disc) > 0.95
    np.testing.assert_array_equal(whole(grabcut.refine(image, DISC_BOX, mask), *disc.shape), after)


def test_certain_pixels_do_not_change() -> None:
    """A sure pixel keeps its side whatever its colour; at the sides of the box masks fade, and nothing is sure."""
    image, disc = scene()
    mask = np.full([12, 12], 0.5)
    mask[:6], mask[6:] = 0.97, 0.03  # the upper half, all of it
    found = whole(grabcut.refine(image, DISC_BOX, mask, agreement=0.0), *disc.shape)
    assert found[23:43, 38:82].all()
    assert not found[48:69].any()


def test_a_mask_that_grabcut_disagrees_with_is_left() -> None:
    """Where nothing is certain the colours would say something else entirely."""
    image, disc = scene()
    mask = np.where(coarse(disc) > 0.5, 0.2, 0.6)  # the corners
    predicted = paste_crop(mask, np.array(DISC_BOX), *disc.shape)
    kept = grabcut.refine(image, DISC_BOX, mask)
    np.testing.assert_array_equal(kept.pixels, predicted.pixels)
    assert not np.array_equal(grabcut.refine(image, DISC_BOX, mask, agreement=0.0).pixels, predicted.pixels)


@pytest.mark.parametrize("box", [[-10, -10, 130, 100], [60, 40, 60.2, 70], [130, 10, 140, 20]])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_without_an_outline_is_left(box, value) -> None:
    """Nothing, or everything in a box without surroundings."""
    image, disc = scene()
    predicted = paste_crop(np.full([12, 12], value), np.array(box, float), *disc.shape)
    refined = grabcut.refine(image, box, np.full([12, 12], value))
    assert (refined.left, refined.top) == (predicted.left, predicted.top)
    np.testing.assert_array_equal(refined.pixels, predicted.pixels)


def test_masks_to_learn_from_extend_to_the_sides_of_their_boxes() -> None:
    image, disc = scene()
    tight, loose, nowhere, line = grabcut.targets(
        image, [DISC_BOX, [20, 5, 110, 85], [0, 0, 120, 90], [60, 40, 60.2, 70]]
    )
    assert tight.quality > 0.9
    assert iou(whole(tight.crop, *disc.shape), disc) > 0.95
    # Cut out well, but the box is that of something larger; filled for lack of surroundings; no pixel at all.
    assert iou(whole(loose.crop, *disc.shape), disc) > 0.95 or loose.crop.pixels.all()
    assert loose.quality == nowhere.quality == line.quality == 0.0


def test_masks_to_learn_from_are_neither_thin_nor_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    for share, is_learned in ((0.05, False), (0.3, True), (0.9, True), (0.97, False)):
        pixels = np.zeros([50, 50], bool)
        pixels.flat[: int(share * 2500)] = True
        pixels[-1, 0] = True  # down to the last row
        monkeypatch.setattr(grabcut, "segment", lambda image, boxes, p=pixels: [paste.Crop(0, 0, p)])
        (target,) = grabcut.targets(scene()[0], [[0, 0, 50, 50]])
        assert (target.quality > 0) == is_learned
        assert target.quality == (1.0 if is_learned else 0.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda image: grabcut.segment(image, [DISC_BOX]),
        lambda image: grabcut.targets(image, [DISC_BOX]),
        lambda image: grabcut.refine(image, DISC_BOX, np.ones([12, 12])),
    ],
)
def test_without_opencv_the_package_to_install_is_named(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BadInput, match=r"pip install 'maskx_tf\[grabcut\]'"):
        call(scene()[0])
