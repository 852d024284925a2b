"""The steps between a model's masks and those that count."""

from __future__ import annotations

import numpy as np
import pytest

from maskx_tf.errors import BadInput
from maskx_tf.masks import grabcut
from maskx_tf.masks.paste import full, paste_crops, resolve_contested
from maskx_tf.masks.steps import MaskSteps
from tests.masks.test_grabcut import DISC_BOX, coarse, iou, scene

BOXES = np.array([DISC_BOX, [20.0, 10.0, 110.0, 80.0]])


def masks() -> np.ndarray:
    disc = scene()[1]
    return np.array([coarse(disc, moved=4), np.ones([12, 12])])


def unread() -> np.ndarray:
    raise AssertionError("no step reads the image")


@pytest.mark.parametrize("mode", ["continuous", "integer"])
def test_without_steps_masks_are_pasted(mode: str) -> None:
    found = MaskSteps().crops(BOXES, masks(), (90, 120), unread, mode)
    for one, other in zip(found, paste_crops(masks(), BOXES, (90, 120), mode), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    assert MaskSteps(disjoint=True).crops(BOXES, None, (90, 120), unread) is None


def test_disjoint_masks_share_no_pixel() -> None:
    own, other = MaskSteps(disjoint=True).crops(BOXES, masks(), (90, 120), unread)
    both = [full(crop, 90, 120) for crop in (own, other)]
    plain = [full(crop, 90, 120) for crop in paste_crops(masks(), BOXES, (90, 120))]
    np.testing.assert_array_equal(both[0], plain[0])
    np.testing.assert_array_equal(both[1], plain[1] & ~plain[0])


def test_outlines_are_moved_before_pixels_are_divided() -> None:
    pytest.importorskip("cv2", reason="the extra grabcut is not installed")
    image, disc = scene()
    refined = MaskSteps(refine=True).crops(BOXES, masks(), (90, 120), lambda: image)
    assert (
        iou(full(refined[0], 90, 120), disc)
        > 0.95
        > iou(full(paste_crops(masks(), BOXES, (90, 120))[0], 90, 120), disc)
    )
    both = MaskSteps(refine=True, disjoint=True).crops(BOXES, masks(), (90, 120), lambda: image)
    for one, expected in zip(both, resolve_contested(refined, BOXES), strict=True):
        np.testing.assert_array_equal(one.pixels, expected.pixels)
    cut = MaskSteps(grabcut=True).crops(BOXES, None, (90, 120), lambda: image)
    np.testing.assert_array_equal(cut[0].pixels, grabcut.segment(image, BOXES)[0].pixels)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (MaskSteps(grabcut=True, refine=True), "refine: expected no grabcut"),
        (MaskSteps(refine=True, disjoint=True), "refine, disjoint: expected a model with masks, found none"),
    ],
)
def test_steps_that_fit_nothing_are_refused(steps: MaskSteps, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        steps.check(frozenset({"boxes"}))
    MaskSteps(disjoint=True).check(frozenset({"boxes", "masks"}))
