"""Images and masks of batches: pixels equal those of prediction; messages name broken images."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from maskx_tf.config.data import DataConfig
from maskx_tf.config.detector import InputConfig
from maskx_tf.data import opening
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, MaskFile
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples, tfrecords, tfrecords_write
from maskx_tf.errors import BadInput
from maskx_tf.masks import rle
from maskx_tf.masks.rgb import read_image
from maskx_tf.names import COCO
from tests.data import samples
from tests.data.batches import INPUT, PLAIN, VARIED, assert_equal, take, turned


def test_image_with_too_many_instances_keeps_its_first(dataset: Dataset, images: examples.Examples) -> None:
    few = PLAIN.model_copy(update={"max_instances": 2})
    for make in (pipeline.training, pipeline.evaluation):
        for batch in take(make(images, few, INPUT, batch=5), 2):
            for number, classes in zip(batch["image_ids"], batch["gt_classes"], strict=True):
                labels = [one.label for one in dataset.images[number - 100].instances][:2]
                np.testing.assert_array_equal(classes, labels + [0] * (2 - len(labels)))


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
        height, width, _ = read_image(path).shape
        records.append(ImageRecord(path.name, path, width, height))
    seen = examples.from_dataset(Dataset("kinds", ("one",), (1,), tuple(records)))
    large = InputConfig(canvas=(64, 64), short_side=30, long_side=44)
    batches = take(pipeline.evaluation(seen, PLAIN, large, batch=1))
    for batch, record in zip(batches, records, strict=True):
        expected = read_image(str(record.file))
        height, width, _ = expected.shape
        np.testing.assert_array_equal(batch["images"][0, :height, :width], expected, err_msg=str(record.id))
        assert not batch["images"][0, height:].any()
    assert [int(batch["image_ids"][0]) for batch in batches] == list(range(1, len(records) + 1))


def test_broken_image_is_named_and_nothing_hangs(dataset: Dataset, tmp_path: Path) -> None:
    torn = Path(str(dataset.images[1].file)).read_bytes()[:200]
    for name, data, config in (("torn.png", torn, VARIED), ("text.png", b"hello", PLAIN)):
        broken = tmp_path / name
        broken.write_bytes(data)
        records = (*dataset.images[:3], dataset.images[3]._replace(file=broken), *dataset.images[4:])
        seen = examples.from_dataset(dataset._replace(images=records))
        for made in (pipeline.training(seen, config, INPUT, batch=2), pipeline.evaluation(seen, PLAIN, INPUT, batch=2)):
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
    arrays = examples.instance_arrays
    monkeypatch.setattr(
        examples, "instance_arrays", lambda data, place, points: cut.append(place) or arrays(data, place, points)
    )
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
    found = examples.instance_arrays(dataset._replace(images=(record,)), 0, ())
    np.testing.assert_array_equal(found["boxes"], [[0, 0, 20, 20], [50, 10, 60, 40], [0, 0, 50, 50]])
    np.testing.assert_array_equal(found["classes"], [1, 1, 3])
    np.testing.assert_array_equal(found["has_mask"], [0, 0, 0])


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
