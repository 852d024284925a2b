"""Batches: what stands in them; order and variation repeat, resume and divide; broken images are named."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from maskx_tf import predict
from maskx_tf.config.detector import InputConfig
from maskx_tf.config.schema import DataConfig
from maskx_tf.data import examples, opening, pipeline, readers, rle, splits, tfrecords, tfrecords_write
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, MaskFile, bitmap
from maskx_tf.data.names import COCO
from maskx_tf.data.readers import Source
from maskx_tf.data.sample import SIDE
from maskx_tf.errors import BadInput
from maskx_tf.ops import images as image_ops
from maskx_tf.ops import paste as paste_ops
from maskx_tf.ops.batches import targets_of
from tests.data import samples, scenes

ROOT = Path(__file__).resolve().parents[2]
CCP = ROOT.parent / "shared" / "data" / "ccp"
INPUT = InputConfig(canvas=(96, 96), short_side=64, long_side=96)
PLAIN = DataConfig(flip=False, max_instances=8)
VARIED = DataConfig(
    max_instances=8,
    scale_jitter=(0.5, 2.0),
    crop=0.5,
    photometric={"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05},
    copy_paste=0.5,
    seed=5,
)
Batches = list[dict[str, np.ndarray]]


def take(dataset: tf.data.Dataset, count: int | None = None) -> Batches:
    with pipeline.bad_input():
        return [{key: value.numpy() for key, value in batch.items()} for batch in itertools.islice(dataset, count)]


def assert_equal(found: Iterable[dict[str, Any]], expected: Iterable[dict[str, Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scenes.dataset(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> examples.Examples:
    return examples.from_dataset(dataset)


def test_batches_have_static_shapes_and_types_that_a_strategy_takes(images: examples.Examples) -> None:
    expected = {
        "images": ([4, 96, 96, 3], tf.uint8),
        "image_sizes": ([4, 2], tf.float32),
        "original_sizes": ([4, 2], tf.float32),
        "image_ids": ([4], tf.int64),
        "image_valid": ([4], tf.uint8),
        "gt_boxes": ([4, 8, 4], tf.float32),
        "gt_classes": ([4, 8], tf.int32),
        "gt_valid": ([4, 8], tf.uint8),
        "gt_crowd": ([4, 8], tf.uint8),
        "gt_has_mask": ([4, 8], tf.uint8),
        "gt_masks": ([4, 8, 1568], tf.uint8),
    }
    traces = []

    @tf.function
    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        traces.append(1)
        targets = targets_of(batch)
        assert targets.masks.shape == [4, 8, SIDE, SIDE]
        return tf.reduce_sum(targets.masks)

    for made in (
        pipeline.training(images, VARIED, INPUT, batch=4),
        pipeline.training(images, PLAIN, INPUT, batch=4),
        pipeline.evaluation(images, PLAIN, INPUT, batch=4),
    ):
        assert {key: (spec.shape, spec.dtype) for key, spec in made.element_spec.items()} == expected
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
        pixels = predict.read_image(str(record.file))
        expected, size = image_ops.letterbox(tf.constant(pixels), canvas=(96, 96), short_side=64, long_side=96)
        np.testing.assert_array_equal(flat["images"][place], np.round(expected))
        np.testing.assert_array_equal(flat["image_sizes"][place], size)
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
        grid = np.unpackbits(entry["gt_masks"][place]).reshape(1, SIDE, SIDE)
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


def test_has_mask_is_right_in_whatever_variation(dataset: Dataset, images: examples.Examples) -> None:
    """Class 1 has masks, class 2 has some, class 3 none."""
    seen = {1: set[int](), 2: set[int](), 3: set[int]()}
    for batch in take(pipeline.training(images, VARIED, INPUT, batch=5), 30):
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
def whole(images: examples.Examples) -> Batches:
    return take(pipeline.training(images, VARIED, INPUT, batch=6), 6)


def test_two_runs_are_equal_and_another_seed_is_not(images: examples.Examples, whole: Batches) -> None:
    one_by_one = VARIED.model_copy(update={"workers": 1})
    assert_equal(take(pipeline.training(images, one_by_one, INPUT, batch=6), 6), whole)
    # The largest seed there may be.
    other = take(pipeline.training(images, PLAIN.model_copy(update={"seed": 2**32 - 1}), INPUT, batch=6), 1)
    assert not np.array_equal(other[0]["image_ids"], whole[0]["image_ids"])


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
    assert len(read) < 60  # what is fetched ahead, and no more


def joined(parts: list[Batches]) -> Batches:
    return [{key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)]


def test_workers_divide_the_batches_of_one(images: examples.Examples, whole: Batches) -> None:
    parts = [
        take(pipeline.training(images, VARIED, INPUT, batch=6, start=2, worker=worker, workers=2), 3)
        for worker in range(2)
    ]
    assert_equal(joined(parts), whole[2:5])
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


def test_image_with_too_many_instances_keeps_its_first(dataset: Dataset, images: examples.Examples) -> None:
    few = PLAIN.model_copy(update={"max_instances": 2})
    for make in (pipeline.training, pipeline.evaluation):
        for batch in take(make(images, few, INPUT, batch=5), 2):
            for number, classes in zip(batch["image_ids"], batch["gt_classes"], strict=True):
                labels = [one.label for one in dataset.images[number - 100].instances][:2]
                np.testing.assert_array_equal(classes, labels + [0] * (2 - len(labels)))


def turned(path: Path, orientation: int, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def test_pixels_are_those_that_prediction_sees(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    colour = random.randint(0, 256, [30, 44, 3]).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(colour[:4, :5]).resize((44, 30)))
    Image.fromarray(smooth).save(tmp_path / "plain.jpg", quality=85)
    Image.fromarray(smooth[..., 0]).save(tmp_path / "grey.jpg")
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(colour[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(random.randint(0, 65536, [30, 44]).astype(np.uint16)).save(tmp_path / "deep.png")
    palette = Image.fromarray(colour).convert("P")
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "glass.png", transparency=bytes(range(256)))
    Image.fromarray(colour).save(tmp_path / "plain.tif")
    Image.fromarray(smooth).save(tmp_path / "plain.webp")
    Image.fromarray(np.dstack([colour, colour[..., :1]])).save(tmp_path / "clear.png")
    Image.fromarray(colour).save(tmp_path / "plain.bmp")
    for orientation in range(1, 9):
        turned(tmp_path / f"turned{orientation}.jpg", orientation, smooth)
    turned(tmp_path / "turned6.png", 6, colour)
    records = []
    for path in sorted(tmp_path.iterdir()):
        height, width, _ = predict.read_image(path).shape
        records.append(ImageRecord(path.name, path, width, height))
    seen = examples.from_dataset(Dataset("kinds", ("one",), (1,), tuple(records)))
    large = InputConfig(canvas=(64, 64), short_side=30, long_side=44)
    batches = take(pipeline.evaluation(seen, PLAIN, large, batch=1))
    for batch, record in zip(batches, records, strict=True):
        expected = predict.read_image(str(record.file))
        height, width, _ = expected.shape
        np.testing.assert_array_equal(batch["images"][0, :height, :width], expected, err_msg=str(record.id))
        assert not batch["images"][0, height:].any()
    assert [int(batch["image_ids"][0]) for batch in batches] == list(range(1, len(records) + 1))


def test_broken_image_is_named_and_nothing_hangs(dataset: Dataset, tmp_path: Path) -> None:
    for name, data in (("torn.png", Path(str(dataset.images[1].file)).read_bytes()[:200]), ("text.png", b"hello")):
        broken = tmp_path / name
        broken.write_bytes(data)
        records = (*dataset.images[:3], dataset.images[3]._replace(file=broken), *dataset.images[4:])
        seen = examples.from_dataset(dataset._replace(images=records))
        for made in (pipeline.training(seen, VARIED, INPUT, batch=2), pipeline.evaluation(seen, PLAIN, INPUT, batch=2)):
            with pytest.raises(BadInput, match=f"^{broken}: image 103 of scenes: expected ") as caught:
                take(made, 30)
            assert "\n" not in str(caught.value)


def test_missing_image_and_wrong_size_are_named(dataset: Dataset, tmp_path: Path) -> None:
    record = dataset.images[0]
    for other, words in (
        (record._replace(file=tmp_path / "gone.png"), "found no such file"),
        (record._replace(width=99), "expected 99 x "),
    ):
        seen = examples.from_dataset(dataset._replace(images=(other,)))
        with pytest.raises(BadInput, match=words):
            take(pipeline.training(seen, PLAIN, INPUT, batch=1), 1)


def test_mask_that_cannot_be_cut_names_its_annotation(dataset: Dataset) -> None:
    record = dataset.images[1]
    one = record.instances[0]._replace(segmentation={"size": [1, 1], "counts": "1"}, id=77)
    seen = examples.from_dataset(dataset._replace(images=(record._replace(instances=(one,)),)))
    with pytest.raises(BadInput, match="image 101, annotation 77: expected a mask: "):
        take(pipeline.training(seen, PLAIN, INPUT, batch=1), 1)


def test_other_errors_of_tensorflow_stay_what_they_are() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError), pipeline.bad_input():
        tf.io.decode_jpeg(b"no image")


def test_nothing_to_learn_from_is_refused(dataset: Dataset, images: examples.Examples) -> None:
    with pytest.raises(BadInput, match="expected images to learn from, found none"):
        pipeline.training(examples.from_dataset(dataset._replace(images=())), PLAIN, INPUT, batch=1)
    with pytest.raises(BadInput, match="multiple of 4, the number of workers, found 6"):
        pipeline.training(images, PLAIN, INPUT, batch=6, workers=4)
    assert take(pipeline.evaluation(examples.from_dataset(dataset._replace(images=())), PLAIN, INPUT, batch=2)) == []


def test_masks_are_cut_once_as_far_as_memory_goes(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[int] = []
    arrays = examples.arrays
    monkeypatch.setattr(examples, "arrays", lambda data, place: cut.append(place) or arrays(data, place))
    for memory, times in ((1, 10), (0, 18)):  # two images have no instances, which takes no memory
        cut.clear()
        seen = examples.from_dataset(dataset, cache_mib=memory)
        first, second = (take(pipeline.evaluation(seen, PLAIN, INPUT, batch=5)) for _ in range(2))
        assert_equal(first, second)
        assert sorted(set(cut)) == list(range(10))
        assert len(cut) == times


def test_boxes_beyond_the_image_are_cut_and_empty_masks_count_as_none(dataset: Dataset) -> None:
    record = dataset.images[0]._replace(
        instances=(
            Instance((-5.0, -5.0, 20.0, 20.0), 1),
            Instance((50.0, 10.0, 500.0, 40.0), 1),
            Instance((1.0, 1.0, 1.2, 9.0), 2),
            Instance((0.0, 0.0, 50.0, 50.0), 3, False, rle.encode(np.arange(4800).reshape(80, 60) == 4799)),
        )
    )
    found = examples.arrays(dataset._replace(images=(record,)), 0)
    np.testing.assert_array_equal(found.boxes, [[0, 0, 20, 20], [50, 10, 60, 40], [0, 0, 50, 50]])
    np.testing.assert_array_equal(found.classes, [1, 1, 3])
    np.testing.assert_array_equal(found.has_mask, [0, 0, 0])


def test_mask_with_no_pixel_in_its_box_counts_as_none(dataset: Dataset, tmp_path: Path) -> None:
    """In whatever form it comes; and a mask that is there does count."""
    record, box = dataset.images[0], (5.0, 5.0, 25.0, 25.0)
    elsewhere, here = np.zeros([2, 80, 60], np.uint8)
    elsewhere[40:60, 40:55] = here[5:25, 5:25] = 255
    instances = []
    for name, mask in (("elsewhere", elsewhere), ("here", here)):
        path = tmp_path / f"{name}.png"
        Image.fromarray(mask).save(path)
        x1, y1, x2, y2 = (40.0, 40.0, 55.0, 60.0) if mask is elsewhere else box
        polygon = array("d", [x1, y1, x2, y1, x2, y2, x1, y2])
        instances += [Instance(box, 1, False, form) for form in ((polygon,), rle.encode(mask > 0), MaskFile(path))]
    seen = examples.from_dataset(dataset._replace(images=(record._replace(instances=tuple(instances)),)))
    for make in (pipeline.training, pipeline.evaluation):
        (batch,) = take(make(seen, PLAIN, INPUT, batch=1), 1)
        np.testing.assert_array_equal(batch["gt_valid"][0], [1] * 6 + [0] * 2)
        np.testing.assert_array_equal(batch["gt_has_mask"][0], [0, 0, 0, 1, 1, 1, 0, 0])
        assert not batch["gt_masks"][0, :3].any()
        assert np.unpackbits(batch["gt_masks"][0, 3:6]).mean() > 0.97


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png"])
def test_image_is_turned_unless_it_was_annotated_unturned(name: str, tmp_path: Path) -> None:
    """Recorded sizes decide, in batches as in records written from them."""
    smooth = np.broadcast_to(np.arange(44, dtype=np.uint8)[:, None] * 5, [30, 44, 3])
    turned(tmp_path / name, 6, smooth)
    stored = np.asarray(Image.open(tmp_path / name).convert("RGB"))
    box = Instance((0.0, 0.0, 10.0, 20.0), 1)
    records = (ImageRecord(1, tmp_path / name, 44, 30, (box,)), ImageRecord(2, tmp_path / name, 30, 44, (box,)))
    dataset = Dataset("turned", ("one",), (1,), records)
    tfrecords_write.write(dataset, tmp_path / "records")
    large = InputConfig(canvas=(64, 64), short_side=30, long_side=44)
    for seen in (examples.from_dataset(dataset), tfrecords.open_records(tmp_path / "records")):
        as_stored, upright = take(pipeline.evaluation(seen, PLAIN, large, batch=1))
        np.testing.assert_array_equal(as_stored["images"][0, :30, :44], stored)
        np.testing.assert_array_equal(upright["images"][0, :44, :30], np.rot90(stored, -1))
        for batch in (as_stored, upright):
            np.testing.assert_array_equal(batch["gt_boxes"][0, 0], box.box)


def test_masks_of_coco_and_boxes_of_visual_genome_share_a_batch(tmp_path: Path) -> None:
    """From a configuration to tensors: instances of one class have masks or boxes alone, as the files have it."""
    coco, boxes = samples.coco(tmp_path / "coco"), samples.visual_genome(tmp_path / "vg")
    entries = [
        {"images": str(one.images), "annotations": str(one.annotations), "format": one.format} for one in (coco, boxes)
    ]
    config = DataConfig.model_validate({"train": entries, "flip": False, "max_instances": 90})
    dataset = opening.training_set(config)
    seen = opening.training_examples(config, dataset)
    (batch,) = take(pipeline.training(seen, config, INPUT, batch=4), 1)
    by_id = {number: place for place, number in enumerate(batch["image_ids"])}
    assert sorted(by_id) == [1, 2, 3, 4]
    assert dataset.class_names[0] == "dog"
    for number, has_mask in ((1, [1, 0]), (2, [1]), (3, [0]), (4, [0])):
        place = by_id[number]
        np.testing.assert_array_equal(batch["gt_has_mask"][place][batch["gt_classes"][place] == 1], has_mask)
    for number in (3, 4):  # of Visual Genome: every class of COCO's, by name or by one of the 18 overrides
        classes, valid = batch["gt_classes"][by_id[number]], batch["gt_valid"][by_id[number]]
        names = [dataset.class_names[label - 1] for label in classes[valid > 0]]
        assert names == [*COCO, "tree.n.01", "sky.n.01", "sky.n.01", "zebra_crossing.n.01"]
        assert not batch["gt_has_mask"][by_id[number]].any()


MIRRORED = """
import sys
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from pathlib import Path
from tests.data import scenes, test_pipeline as t
from maskx_tf.data import examples, pipeline
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
        pytest.skip("needs shared/data/ccp beside the project")
    dataset = readers.for_training([Source(CCP / "images", CCP / "instances_val.json")], "all")
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
            grid = np.unpackbits(batch["gt_masks"][at, index]).reshape(1, SIDE, SIDE).astype(np.float32)
            box = batch["gt_boxes"][at, index] / ratio
            found = paste_ops.paste(grid, box[None], record.height, record.width)[0]
            mask = bitmap(one.segmentation, record.height, record.width)
            # Threads one pixel wide, of which some things have many, the grid does not keep.
            overlaps.append((found & mask).sum() / (found | mask).sum())
    assert np.median(overlaps) > 0.95
    assert min(overlaps) > 0.7
