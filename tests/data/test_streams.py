"""Batches of the user's own `tf.data.Dataset`: those of the same images in files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.data import splits
from maskx_tf.data.dataset import Dataset, bitmap
from maskx_tf.data.images import load_pixels
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples, streams
from maskx_tf.errors import BadInput
from tests.data.batches import INPUT, PLAIN, assert_equal, take

NAMES = ("cat", "dog")


def elements(dataset: Dataset) -> tf.data.Dataset:
    """The images of a data set as a program of the user's would yield them."""

    def generate() -> Any:
        for record in dataset.images:
            boxes = np.array([one.box for one in record.instances], np.float32).reshape(-1, 4)
            masks = np.zeros([len(boxes), record.height, record.width], bool)
            for mask, one in zip(masks, record.instances, strict=True):
                if one.segmentation is not None:
                    mask[:] = bitmap(one.segmentation, record.height, record.width)
            labels = np.array([one.label for one in record.instances], np.int32)
            yield {"image": load_pixels(record), "boxes": boxes, "classes": labels, "masks": masks}

    shapes = {
        "image": ([None, None, 3], tf.uint8),
        "boxes": ([None, 4], tf.float32),
        "classes": ([None], tf.int32),
        "masks": ([None, None, None], tf.bool),
    }
    signature = {name: tf.TensorSpec(*spec) for name, spec in shapes.items()}
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def one_image(**changes: Any) -> tf.data.Dataset:
    element = {
        "image": np.full([20, 30, 3], 9, np.uint8),
        "boxes": np.float32([[2, 3, 12, 13]]),
        "classes": np.int32([1]),
        **changes,
    }
    return tf.data.Dataset.from_tensors({name: value for name, value in element.items() if value is not None})


def batches_of(images: tf.data.Dataset, policy: splits.Policy = "all", **options: Any) -> tf.data.Dataset:
    return streams.training(images, PLAIN, INPUT, NAMES, policy, batch=2, **options)


def by_number(batches: list[dict[str, np.ndarray]]) -> dict[int, dict[str, np.ndarray]]:
    return {
        int(number): {key: batch[key][place] for key in batch if key != "image_ids"}
        for batch in batches
        for place, number in enumerate(batch["image_ids"])
    }


def test_batches_are_those_of_the_same_images_in_files(dataset: Dataset, images: examples.Examples) -> None:
    count = len(dataset.images)
    made = streams.training(elements(dataset), PLAIN, INPUT, dataset.class_names, "all", batch=1)
    expected = by_number(take(pipeline.training(images, PLAIN, INPUT, batch=1), count))
    found = by_number(take(made, count))
    for place, number in enumerate(examples.image_numbers(dataset)):
        ours, theirs = found[place], expected[number]
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"gt_masks", "gt_crowd"}:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
        # A polygon is cut from its corners, a bitmap from its pixels.
        differ = np.unpackbits(ours["gt_masks"] ^ theirs["gt_masks"])
        assert differ.mean() < 0.01


def test_images_come_again_in_their_order_from_any_step(dataset: Dataset) -> None:
    few = elements(dataset._replace(images=dataset.images[:3]))
    options: dict[str, Any] = {"class_names": dataset.class_names, "policy": "all", "batch": 2}
    every = take(streams.training(few, PLAIN, INPUT, **options), 4)
    assert np.concatenate([one["image_ids"] for one in every]).tolist() == list(range(8))
    np.testing.assert_array_equal(every[0]["images"][0], every[1]["images"][1])
    assert_equal(take(streams.training(few, PLAIN, INPUT, start=2, **options), 2), every[2:])


def test_masks_of_b_and_empty_masks_are_unknown() -> None:
    masks = np.zeros([3, 20, 30], bool)
    masks[:2, 3:13, 2:12] = True
    boxes = np.float32([[2, 3, 12, 13]] * 3)
    images = one_image(boxes=boxes, classes=np.int32([1, 2, 1]), masks=masks)
    for policy, known in (("all", [1, 1, 0]), (("cat",), [1, 0, 0]), ("none", [0, 0, 0])):
        (batch,) = take(batches_of(images, policy), 1)
        assert batch["gt_has_mask"][0, :3].tolist() == known
        assert batch["gt_masks"][0, :3].any(axis=-1).tolist() == [bool(flag) for flag in known]
    (batch,) = take(batches_of(one_image()), 1)
    assert not batch["gt_has_mask"].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": None}, "expected dicts of image, boxes, classes and, optionally, masks; found classes, image$"),
        ({"label": np.int32([1])}, "found boxes, classes, image, label$"),
        ({"image": np.zeros([20, 30, 3], np.float32)}, r"number 0: expected an image uint8 \[h, w, 3\], found float32"),
        ({"boxes": np.zeros([2, 4], np.float32)}, r"number 0: boxes: expected \[1, 4\], found \[2, 4\]"),
        ({"masks": np.zeros([1, 30, 20], bool)}, r"number 0: masks: expected \[1, 20, 30\], found \[1, 30, 20\]"),
        ({"classes": np.int32([3])}, "number 0: expected finite boxes, and classes from 1 to 2"),
        ({"boxes": np.full([1, 4], np.nan, np.float32)}, "number 0: expected finite boxes"),
    ],
)
def test_wrong_elements_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        take(batches_of(one_image(**changes)), 1)
