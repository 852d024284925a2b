"""mAP^r against a slow loop, and where it differs from COCO's."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskx_tf.evaluation import voc
from maskx_tf.masks import paste as paste_ops
from maskx_tf.masks import rle
from tests.evaluation import made_up
from tests.fcis_oracle import continuous, each_file_with
from tests.oracle import outputs


def slow(truth, results, category: int, threshold: float) -> float:
    """The definition, image by image and pixel by pixel, over eleven recalls."""
    objects = [one for one in truth["annotations"] if one["category_id"] == category]
    pixels = {one["id"]: coco_mask.decode(one["segmentation"]).astype(bool) for one in objects}
    taken, hits = set(), []
    for result in sorted((one for one in results if one["category_id"] == category), key=lambda one: -one["score"]):
        mask = coco_mask.decode(result["segmentation"]).astype(bool)
        best, owner, crowded = 0.0, None, False
        for one in objects:
            if one["image_id"] != result["image_id"]:
                continue
            shared = (mask & pixels[one["id"]]).sum()
            if one["iscrowd"]:
                crowded |= shared / mask.sum() >= threshold
            elif shared / (mask | pixels[one["id"]]).sum() > best:
                best, owner = shared / (mask | pixels[one["id"]]).sum(), one["id"]
        if best >= threshold and owner not in taken:
            hits.append(True)
            taken.add(owner)
        elif not crowded:
            hits.append(False)
    total = sum(not one["iscrowd"] for one in objects)
    values = []
    for tenth in range(11):
        reached = [0.0]
        firsts = [hits[:count] for count in range(1, len(hits) + 1)]
        # Three tenths are a rounding above .3 in programs for VOC.
        reached += [sum(first) / len(first) for first in firsts if sum(first) / total >= tenth * 0.1]
        values.append(max(reached))
    return float(np.mean(values))


def test_equal_to_the_definition() -> None:
    truth = made_up.truth()
    results = made_up.results(truth)
    found = voc.average_precision(truth, results)
    for category in (3, 7, 8, 20):
        for threshold, value in zip((0.5, 0.7), found[category], strict=True):
            assert value == pytest.approx(slow(truth, results, category, threshold), abs=1e-12)
    assert found[90] == (None, None)
    assert len({value for values in found.values() for value in values}) > 5


def test_a_second_detection_of_an_object_is_a_false_positive() -> None:
    truth = made_up.truth()
    objects = [one for one in truth["annotations"] if not one["iscrowd"]]
    once = [{**one, "score": 0.9} for one in objects]
    assert set(voc.average_precision(truth, once).values()) == {(1.0, 1.0), (None, None)}
    areas = (voc.eleven_points, voc.every_point)
    assert set(voc.average_precision(truth, once, (0.5,), areas).values()) == {(1.0, 1.0), (None, None)}
    before = [{**one, "score": 1.0} for one in objects]
    twice = voc.average_precision(truth, [*before, *once])
    assert twice[3] == (1.0, 1.0)  # the repeats come after full recall
    mixed = [{**one, "score": 1.0 - 0.01 * number} for number, one in enumerate(objects) for _ in range(2)]
    assert all(value < 0.9 for number in (3, 7, 8, 20) for value in voc.average_precision(truth, mixed)[number])


def test_every_form_of_segmentation() -> None:
    square = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
    compressed = coco_mask.merge(coco_mask.frPyObjects(square, 40, 50))
    pixels = coco_mask.decode(compressed)
    columns = pixels.T.reshape(-1)
    edges = np.flatnonzero(np.diff(columns, prepend=0, append=0))
    runs = np.diff(edges, prepend=0, append=40 * 50).tolist()
    for form in (square, compressed, {"size": [40, 50], "counts": runs}):
        np.testing.assert_array_equal(coco_mask.decode(rle.of_any_form(form, 40, 50)), pixels)


def test_every_recall() -> None:
    """Hits 1, 3 and 4 of 4 objects: precisions 1, 2/3 and 3/4, of which the second is lifted to the third."""
    hits = np.array([True, False, True, True, False])
    assert voc.every_point(hits, 4) == pytest.approx((1 + 3 / 4 + 3 / 4) / 4)
    assert voc.eleven_points(hits, 4) == pytest.approx((3 * 1 + 5 * 3 / 4) / 11)
    assert voc.every_point(np.zeros(0, bool), 4) == voc.eleven_points(np.zeros(0, bool), 4) == 0.0


@each_file_with("sds/det_masks")
def test_oracle_fcis_voc(file) -> None:
    """mAP^r of the reference's evaluator, masks drawn as it draws them."""
    stored = outputs(file)
    maps, classes = stored["sds/instances"], stored["sds/instance_class"]
    size = maps.shape[1:]
    numbers = range(1, stored["sds/ap_at_50_and_70"].shape[1] + 1)
    truth = {
        "images": [{"id": image, "height": size[0], "width": size[1]} for image in range(len(maps))],
        "categories": [{"id": number, "name": str(number)} for number in numbers],
        "annotations": [
            {
                "id": 1000 * image + int(one),
                "image_id": image,
                "category_id": int(classes[image, one]),
                "segmentation": rle.encode(maps[image] == one),
                "bbox": [0, 0, 1, 1],
                "area": 1.0,
                "iscrowd": 0,
            }
            for image in range(len(maps))
            for one in np.unique(maps[image])
            if 0 < one < classes.shape[1] and classes[image, one] > 0
        ],
    }
    rows = stored["sds/det_boxes_scores"]
    boxes = continuous(np.round(rows[:, :4]).astype(np.float32))
    drawn = paste_ops.paste(stored["sds/det_masks"], boxes, *size, threshold=0.4, mode="replicate")
    results = [
        {
            "image_id": int(stored["sds/det_image"][index]),
            "category_id": int(stored["sds/det_class"][index]),
            "score": float(rows[index, 4]),
            "segmentation": rle.encode(drawn[index]),
        }
        for index in range(len(rows))
    ]
    found = voc.average_precision(truth, results)
    np.testing.assert_allclose(
        np.array([found[number] for number in numbers]).T, stored["sds/ap_at_50_and_70"], atol=1e-9
    )
