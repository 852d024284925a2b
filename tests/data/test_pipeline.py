"""Batches: their contents; order and variation are repeatable, can be resumed, and divided among workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.data import splits
from maskx_tf.data.dataset import Dataset, ImageRecord, bitmap
from maskx_tf.data.formats import readers
from maskx_tf.data.formats.readers import DataFiles
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples
from maskx_tf.masks import paste as paste_ops
from maskx_tf.masks.rgb import read_image
from maskx_tf.ops import images as image_ops
from maskx_tf.ops.batches import targets_of
from maskx_tf.structures import MASK_SIDE
from tests.data.batches import INPUT, PLAIN, VARIED, Batches, assert_equal, take

ROOT = Path(__file__).resolve().parents[2]
CCP = ROOT.parent / "shared" / "data" / "ccp"


@pytest.fixture(scope="module")
def varied(images: examples.Examples) -> tf.data.Dataset:
    """Made once, since its graph takes seconds to trace; each loop over it begins at the start."""
    return pipeline.training(images, VARIED, INPUT, batch=6)


def test_batches_have_static_shapes_and_types_that_a_strategy_takes(
    images: examples.Examples, varied: tf.data.Dataset
) -> None:
    expected = {
        "images": ([6, 96, 96, 3], tf.uint8),
        "image_sizes": ([6, 2], tf.float32),
        "original_sizes": ([6, 2], tf.float32),
        "image_ids": ([6], tf.int64),
        "image_valid": ([6], tf.uint8),
        "gt_boxes": ([6, 8, 4], tf.float32),
        "gt_classes": ([6, 8], tf.int32),
        "gt_valid": ([6, 8], tf.uint8),
        "gt_crowd": ([6, 8], tf.uint8),
        "gt_has_mask": ([6, 8], tf.uint8),
        "gt_masks": ([6, 8, 1568], tf.uint8),
    }
    traces = []

    @tf.function
    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        traces.append(1)
        targets = targets_of(batch)
        assert targets.masks.shape == [6, 8, MASK_SIDE, MASK_SIDE]
        return tf.reduce_sum(targets.masks)

    for made in (
        varied,
        pipeline.training(images, PLAIN, INPUT, batch=6),
        pipeline.evaluation(images, PLAIN, INPUT, batch=6),
    ):
        assert {key: (spec.shape, spec.dtype) for key, spec in made.element_spec.items()} == expected
        assert not made.options().autotune.enabled  # its thread may hold up the end by a minute
        for batch in made.take(3):
            step(batch)
    assert len(traces) == 1


def test_evaluation_shows_each_image_once_and_as_it_is(dataset: Dataset, images: examples.Examples) -> None:
    batches = take(pipeline.evaluation(images, VARIED, INPUT, batch=4))
    assert len(batches) == 3
    flat = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    np.testing.assert_array_equal(flat["image_valid"], [1] * 10 + [0] * 2)
    np.testing.assert_array_equal(flat["image_ids"], [*range(100, 110), -1, -1])
    assert not flat["gt_valid"][10:].any()
    assert (flat["image_sizes"] > 0).all()
    for place, record in enumerate(dataset.images):
        pixels = read_image(str(record.file))
        resized = image_ops.resize_to_fit(tf.constant(pixels), canvas=(96, 96), short_side=64, long_side=96)
        height, width, _ = resized.shape
        np.testing.assert_array_equal(flat["images"][place, :height, :width], np.round(resized))
        assert not flat["images"][place, height:].any()
        assert not flat["images"][place, :, width:].any()
        np.testing.assert_array_equal(flat["image_sizes"][place], [height, width])
        np.testing.assert_array_equal(flat["original_sizes"][place], pixels.shape[:2])
        check_truth({key: value[place] for key, value in flat.items()}, record)


def check_truth(entry: dict[str, np.ndarray], record: ImageRecord) -> None:
    """An entry that is not varied says of its instances what the record says."""
    count = len(record.instances)
    ratio = np.tile((entry["image_sizes"] / entry["original_sizes"])[::-1], 2)
    np.testing.assert_array_equal(entry["gt_valid"], [1] * count + [0] * (8 - count))
    np.testing.assert_array_equal(entry["gt_classes"][:count], [one.label for one in record.instances])
    np.testing.assert_array_equal(entry["gt_crowd"][:count], [one.crowd for one in record.instances])
    np.testing.assert_array_equal(entry["gt_has_mask"][:count], [one.has_mask for one in record.instances])
    for place, one in enumerate(record.instances):
        np.testing.assert_allclose(entry["gt_boxes"][place], np.array(one.box) * ratio, rtol=1e-6)
        grid = np.unpackbits(entry["gt_masks"][place]).reshape(1, MASK_SIDE, MASK_SIDE)
        if one.segmentation is None:
            assert not grid.any()
            continue
        box = np.array([one.box], np.float32)
        found = paste_ops.paste(grid.astype(np.float32), box, record.height, record.width)[0]
        truth = bitmap(one.segmentation, record.height, record.width)
        assert (found & truth).sum() / (found | truth).sum() > 0.97
    for key in ("gt_boxes", "gt_classes", "gt_crowd", "gt_has_mask", "gt_masks"):
        assert not entry[key][count:].any()


def test_training_shows_each_image_once_an_epoch(images: examples.Examples) -> None:
    batches = take(pipeline.training(images, PLAIN, INPUT, batch=4), 10)
    ids = np.concatenate([batch["image_ids"] for batch in batches]).reshape(4, 10)
    for epoch in ids:
        assert sorted(epoch) == list(range(100, 110))
    assert len({tuple(epoch) for epoch in ids}) == 4
    np.testing.assert_array_equal(ids[0], 100 + pipeline.order(10, PLAIN.seed, 0))


def test_training_that_varies_nothing_tells_the_truth(dataset: Dataset, images: examples.Examples) -> None:
    records = {record.id: record for record in dataset.images}
    for batch in take(pipeline.training(images, PLAIN, INPUT, batch=5), 2):
        for place in range(5):
            check_truth({key: value[place] for key, value in batch.items()}, records[batch["image_ids"][place]])


def test_has_mask_is_right_in_whatever_variation(varied: tf.data.Dataset) -> None:
    """Class 1 has masks, class 2 has some, class 3 none."""
    seen = {1: set[int](), 2: set[int](), 3: set[int]()}
    for batch in take(varied, 25):
        has_mask, filled = batch["gt_has_mask"], batch["gt_masks"].any(axis=-1)
        np.testing.assert_array_equal(has_mask, filled)
        assert (batch["gt_valid"] >= has_mask).all()
        for label, known in seen.items():
            known.update(has_mask[batch["gt_classes"] == label].tolist())
        boxes, valid = batch["gt_boxes"], batch["gt_valid"] > 0
        limits = np.tile(batch["image_sizes"][:, None, ::-1], [1, 8, 2])
        assert ((boxes >= 0) & (boxes <= limits)).all()
        assert ((boxes[..., 2:] - boxes[..., :2])[valid] >= 1).all()
        assert not boxes[~valid].any()
    assert seen == {1: {1}, 2: {0, 1}, 3: {0}}


def test_masks_of_b_never_reach_a_batch(dataset: Dataset) -> None:
    """Every instance of class 1 has a mask in the file; the policy puts the class into B."""
    seen = examples.from_dataset(splits.apply(dataset, ("some", "none")))
    masks = 0
    for batch in take(pipeline.training(seen, VARIED, INPUT, batch=5), 20):
        is_b = batch["gt_classes"] == 1
        assert is_b.any()
        assert not batch["gt_has_mask"][is_b].any()
        assert not batch["gt_masks"][is_b].any()
        masks += int(batch["gt_has_mask"].sum())
    assert masks > 0


@pytest.fixture(scope="module")
def whole(varied: tf.data.Dataset) -> Batches:
    return take(varied, 6)


def test_two_runs_are_equal_and_another_seed_is_not(images: examples.Examples, whole: Batches) -> None:
    one_by_one = VARIED.model_copy(update={"workers": 1})
    assert_equal(take(pipeline.training(images, one_by_one, INPUT, batch=6), 6), whole)
    # The largest seed there may be.
    other = take(pipeline.training(images, PLAIN.model_copy(update={"seed": 2**32 - 1}), INPUT, batch=6), 1)
    assert not np.array_equal(other[0]["image_ids"], whole[0]["image_ids"])


@pytest.mark.slow  # by default test_workers_divide_the_batches_of_one starts later, too
@pytest.mark.parametrize("start", [1, 4])
def test_run_that_starts_later_goes_on_as_if_it_had_been_there(
    images: examples.Examples, whole: Batches, start: int
) -> None:
    assert_equal(take(pipeline.training(images, VARIED, INPUT, batch=6, start=start), 6 - start), whole[start:])


def test_start_decodes_nothing_that_lies_before(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    pixels = examples.pixels
    monkeypatch.setattr(examples, "pixels", lambda data, place: read.append(place) or pixels(data, place))
    made = pipeline.training(examples.from_dataset(dataset), PLAIN, INPUT, batch=2, start=10**9)
    take(made, 1)
    assert 2 <= len(read) < 60  # the batch and what is fetched ahead, and no more


def joined(parts: list[Batches]) -> Batches:
    return [{key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)]


def test_workers_divide_the_batches_of_one(images: examples.Examples) -> None:
    varied = PLAIN.model_copy(update={"flip": True, "scale_jitter": (0.5, 2.0)})  # quicker to trace than all
    whole = take(pipeline.training(images, varied, INPUT, batch=6), 5)
    parts = [
        take(pipeline.training(images, varied, INPUT, batch=6, start=2, worker=worker, workers=2), 3)
        for worker in range(2)
    ]
    assert_equal(joined(parts), whole[2:])
    alone = take(pipeline.evaluation(images, PLAIN, INPUT, batch=6))
    parts = [take(pipeline.evaluation(images, PLAIN, INPUT, batch=6, worker=worker, workers=3)) for worker in range(3)]
    assert_equal(joined(parts), alone)


def test_variations_vary(images: examples.Examples) -> None:
    """Between epochs, and each by itself; one that is switched on changes none of the others' draws."""
    plain = take(pipeline.training(images, PLAIN, INPUT, batch=10), 4)
    for update in ({"flip": True}, {"scale_jitter": (0.5, 1.5)}, {"crop": 0.5}, {"copy_paste": 1.0}):
        found = take(pipeline.training(images, PLAIN.model_copy(update=update), INPUT, batch=10), 4)
        changed = [
            [not np.array_equal(a, b) for a, b in zip(one["images"], other["images"], strict=True)]
            for one, other in zip(found, plain, strict=True)
        ]
        assert 0.25 < np.mean(changed) <= 1.0
    flips = take(pipeline.training(images, PLAIN.model_copy(update={"flip": True}), INPUT, batch=10), 4)
    colours = PLAIN.model_copy(update={"flip": True, "photometric": VARIED.photometric})
    for one, other in zip(take(pipeline.training(images, colours, INPUT, batch=10), 4), flips, strict=True):
        np.testing.assert_array_equal(one["gt_boxes"], other["gt_boxes"])
        assert not np.array_equal(one["images"], other["images"])


def test_pasted_instances_have_masks_and_are_no_crowds(dataset: Dataset, images: examples.Examples) -> None:
    config = PLAIN.model_copy(update={"copy_paste": 1.0, "max_instances": 4})
    counts = {record.id: min(4, len(record.instances)) for record in dataset.images}
    grown = 0
    for batch in take(pipeline.training(images, config, INPUT, batch=5), 12):
        for number, valid, has_mask, crowd in zip(
            *(batch[key] for key in ("image_ids", "gt_valid", "gt_has_mask", "gt_crowd")), strict=True
        ):
            own = counts[number]
            if valid.sum() > own:
                grown += 1
                assert has_mask[own : valid.sum()].sum() >= valid.sum() - own
                assert not crowd[own:].any()
    assert grown > 10


MIRRORED = """
import sys
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from pathlib import Path
from tests.data import batches as t, scenes
from maskx_tf.data.pipeline import examples, batches as pipeline
from maskx_tf.ops.batches import targets_of
images = examples.from_dataset(scenes.dataset(Path(sys.argv[1])))
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
made = pipeline.training(images, t.VARIED, t.INPUT, batch=4)
for whole, parts in zip(made.take(3), strategy.experimental_distribute_dataset(made)):
    for key, value in whole.items():
        local = strategy.experimental_local_results(parts[key])
        assert len(local) == 2
        np.testing.assert_array_equal(np.concatenate(local), value)
    def step(batch):
        return tf.reduce_sum(targets_of(batch).masks)
    total = strategy.reduce("SUM", strategy.run(step, args=(parts,)), axis=None)
    np.testing.assert_allclose(total, np.unpackbits(whole["gt_masks"].numpy()).sum())
print("equal")
"""


@pytest.mark.slow
def test_mirrored_replicas_share_the_batch(tmp_path: Path) -> None:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    assert done.stdout.endswith("equal\n"), done.stderr[-2000:]


def test_real_photos_pass_through() -> None:
    if not CCP.is_dir():
        pytest.skip("needs shared/data/ccp next to the project")
    dataset = readers.for_training([DataFiles(CCP / "images", CCP / "instances_val.json")], "all")
    small = dataset._replace(images=dataset.images[:6])
    seen, config = examples.from_dataset(small), VARIED.model_copy(update={"max_instances": 30, "copy_paste": 0.0})
    batches = take(pipeline.training(seen, config, INPUT, batch=6), 4)
    assert sum(int(batch["gt_has_mask"].sum()) for batch in batches) > 30
    truth = take(pipeline.evaluation(seen, config, INPUT, batch=6))
    overlaps: list[float] = []
    for at, record in enumerate(small.images):
        batch = truth[0]
        assert batch["gt_valid"][at].sum() == len(record.instances)
        ratio = np.tile((batch["image_sizes"] / batch["original_sizes"])[at, ::-1], 2)
        for index, one in enumerate(record.instances):
            grid = np.unpackbits(batch["gt_masks"][at, index]).reshape(1, MASK_SIDE, MASK_SIDE).astype(np.float32)
            box = batch["gt_boxes"][at, index] / ratio
            found = paste_ops.paste(grid, box[None], record.height, record.width)[0]
            mask = bitmap(one.segmentation, record.height, record.width)
            # Threads one pixel wide, of which some things have many, the grid does not keep.
            overlaps.append((found & mask).sum() / (found | mask).sum())
    assert np.median(overlaps) > 0.95
    assert min(overlaps) > 0.7
