"""Keypoints of a data set go through the whole pipeline; data sets without keypoints have no such fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.data.dataset import Dataset, ImageRecord, Instance
from maskx_tf.data.formats.join import join, ordered
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import copy_paste, examples, tfrecords_write, transforms
from maskx_tf.data.pipeline.sample import Sample
from maskx_tf.errors import BadInput
from maskx_tf.ops.batches import targets_of
from maskx_tf.structures import FIELDS, VALID, KeypointSet, Targets, with_flags
from tests.data import scenes
from tests.data.batches import INPUT, PLAIN, VARIED, assert_equal, take
from tests.data.scenes import HEIGHT, WIDTH, sample, things

# The corners of the box, left and right of which change places in a mirror.
CORNERS = KeypointSet(("top left", "top right", "bottom left", "bottom right"), ((0, 1),), flip=((0, 1), (2, 3)))


def corners_of(boxes: np.ndarray) -> np.ndarray:
    """[..., 4, 2] of boxes [..., 4]."""
    return np.stack([boxes[..., [0, 1]], boxes[..., [2, 1]], boxes[..., [0, 3]], boxes[..., [2, 3]]], axis=-2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The scenes, in which classes 1 and 3 have corners; the last corner is missing."""
    plain = scenes.dataset(tmp_path_factory.mktemp("scenes"))

    def marked(one: Instance) -> Instance:
        labels = np.array([[1], [2], [1], [0]])
        points = np.concatenate([corners_of(np.array(one.box)), labels], axis=1).astype(np.float32)
        return one._replace(keypoints=points) if one.label != 2 else one

    def complete(image: ImageRecord) -> ImageRecord:
        return image._replace(instances=tuple(map(marked, image.instances)))

    return plain._replace(images=tuple(map(complete, plain.images)), keypoints=CORNERS)


def test_table_and_targets_name_the_same_values() -> None:
    names = {field.name for field in with_flags((VALID, *FIELDS))}
    assert names == set(Targets._fields)


def test_mirror_swaps_the_pairs_alone() -> None:
    assert CORNERS.mirror == (1, 0, 3, 2)
    eyes = KeypointSet(("nose", "left eye", "right eye"), flip=((1, 2),))
    assert (eyes.field.mirror, eyes.field.shape) == ((0, 2, 1), (3, 3))
    assert KeypointSet(("tip",)).mirror == (0,)


def test_evaluation_gives_points_on_the_canvas(dataset: Dataset) -> None:
    batches = take(pipeline.evaluation(examples.from_dataset(dataset), PLAIN, INPUT, batch=4))
    for batch in batches:
        assert (batch["gt_keypoints"].shape, batch["gt_keypoints"].dtype) == ((4, 8, 4, 3), np.float32)
        known = (batch["gt_valid"] > 0) & (batch["gt_classes"] != 2)
        np.testing.assert_array_equal(batch["gt_has_keypoints"], known.astype(np.uint8))
        expected = corners_of(batch["gt_boxes"])[known]
        np.testing.assert_allclose(batch["gt_keypoints"][known][:, :3, :2], expected[:, :3], rtol=1e-6)
        np.testing.assert_array_equal(batch["gt_keypoints"][known][..., 2], [[1, 2, 1, 0]] * known.sum())
        assert not batch["gt_keypoints"][known][:, 3].any()
        assert not batch["gt_keypoints"][~known].any()


def test_points_follow_boxes_that_are_mirrored_and_scaled(dataset: Dataset) -> None:
    config = PLAIN.model_copy(update={"flip": True, "scale_jitter": (0.5, 1.0)})
    seen = 0
    flipped = 0
    for batch in take(pipeline.training(examples.from_dataset(dataset), config, INPUT, batch=5), 12):
        points = batch["gt_keypoints"][batch["gt_has_keypoints"] > 0]
        expected = corners_of(batch["gt_boxes"])[batch["gt_has_keypoints"] > 0]
        there = points[..., 2] > 0
        np.testing.assert_allclose(points[there][:, :2], expected[there], atol=1e-3)
        # The corner at the bottom right has no point; in a mirror, the one at the bottom left.
        assert (there.sum(axis=1) == 3).all()
        flipped += int((~there[:, 2]).sum())
        seen += len(points)
    assert seen > 50
    assert 0.3 < flipped / seen < 0.7


def test_points_lie_in_the_image_in_whatever_variation(dataset: Dataset) -> None:
    lost = 0
    for batch in take(pipeline.training(examples.from_dataset(dataset), VARIED, INPUT, batch=5), 20):
        points, known = batch["gt_keypoints"], batch["gt_has_keypoints"] > 0
        there = points[..., 2] > 0
        limits = batch["image_sizes"][:, None, None, ::-1]
        assert ((points[..., :2] >= -0.01) & (points[..., :2] <= limits + 0.01)).all()
        assert not points[~there].any()
        np.testing.assert_array_equal(known, there.any(axis=-1))
        lost += int((there.sum(axis=-1) < 3)[known].sum())
    assert lost > 10


def with_points(given: Sample, points: np.ndarray) -> Sample:
    """The sample with corners [G, 4, 3], all of which are known."""
    fields = (*given.fields, *with_flags([CORNERS.field]))
    known = tf.ones(len(points), tf.bool)
    return Sample(given.image, fields, {**given.values, "keypoints": tf.constant(points), "has_keypoints": known})


def random_points(count: int) -> np.ndarray:
    random = np.random.RandomState(6)
    points = random.rand(count, 4, 3) * [WIDTH, HEIGHT, 1]
    points[..., 2] = random.randint(1, 3, points.shape[:2])
    return points.astype(np.float32)


def test_flip_changes_the_places_of_left_and_right() -> None:
    points = random_points(5)
    given = with_points(sample(things()[:5]), points)
    once = transforms.flip(given)
    for mine, before in zip(once["keypoints"].numpy(), points, strict=True):
        for place, other in enumerate(CORNERS.mirror):
            x, y, label = before[other]
            np.testing.assert_allclose(mine[place], [WIDTH - x, y, label], rtol=1e-6)
    np.testing.assert_allclose(transforms.flip(once)["keypoints"], points, atol=1e-4)


def test_points_outside_of_a_window_are_gone() -> None:
    count = 60
    points = random_points(count)
    window = top, left, height, width = 60, 80, 150, 180
    boxes = np.array([[0, 0, WIDTH, HEIGHT]] * count, np.float32)  # of which something is left in any window
    given = with_points(sample(things(count), boxes=boxes, has_mask=np.zeros(count, bool)), points)
    found = transforms.cut(given, tf.constant(window))
    gone = 0
    for mine, known, before in zip(found["keypoints"].numpy(), found["has_keypoints"].numpy(), points, strict=True):
        expected = np.zeros([4, 3], np.float32)
        for place, (x, y, label) in enumerate(before):
            if left <= x <= left + width and top <= y <= top + height:
                expected[place] = x - left, y - top, label
        np.testing.assert_allclose(mine, expected, atol=1e-4)
        assert known == expected.any()
        gone += not known
    assert 0 < gone < count


def test_points_below_something_pasted_are_gone() -> None:
    points = random_points(6)
    above = things()[10:13]
    below = with_points(sample(things()[:6]), points)
    found = copy_paste.paste(below, with_points(sample(above), points[:3]), tf.constant([True, False, True]))
    cover = above[0].mask | above[2].mask
    hidden = 0
    for mine, valid, before in zip(found["keypoints"].numpy()[:6], found["valid"].numpy()[:6], points, strict=True):
        for point, (x, y, label) in zip(mine, before, strict=True):
            is_seen = valid and not cover[int(y), int(x)]
            np.testing.assert_array_equal(point, [x, y, label] if is_seen else [0, 0, 0])
            hidden += not is_seen
    assert 0 < hidden < 20
    np.testing.assert_array_equal(found["keypoints"][6:], points[:3] * [[[1]], [[0]], [[1]]])


def test_points_outside_of_their_image_are_not_there(dataset: Dataset) -> None:
    box = (5.0, 5.0, 25.0, 25.0)
    points = np.array([[-1, 5, 1], [25, 5, 2], [5, 99, 1], [25, 25, 0]], np.float32)
    record = dataset.images[0]._replace(instances=(Instance(box, 1, keypoints=points), Instance(box, 1)))
    found = examples.instance_arrays(dataset._replace(images=(record,)), 0, dataset.points)
    np.testing.assert_array_equal(found["keypoints"], [[[0] * 3, [25, 5, 2], [0] * 3, [0] * 3], np.zeros([4, 3])])
    np.testing.assert_array_equal(found["has_keypoints"], [True, False])


def test_records_keep_points(dataset: Dataset, tmp_path: Path) -> None:
    tfrecords_write.write(dataset, tmp_path / "out", per_shard=4)
    source, records = examples.from_dataset(dataset), tfrecords_write.open_written(dataset, tmp_path / "out")
    for make in (pipeline.training, pipeline.evaluation):
        found, expected = (take(make(made, PLAIN, INPUT, batch=4), 3) for made in (records, source))
        assert_equal(found, expected)
    record = dataset.images[1]
    moved = record.instances[0]._replace(keypoints=np.ones([4, 3], np.float32))
    images = (dataset.images[0], record._replace(instances=(moved,)), *dataset.images[2:])
    for other in (dataset._replace(images=images), dataset._replace(keypoints=None)):
        with pytest.raises(BadInput, match="found others"):
            tfrecords_write.open_written(other, tmp_path / "out")


def test_all_instances_are_looked_at_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each image, which took the square of their number."""
    looks: list[str] = []
    points = dataset.points
    monkeypatch.setattr(Dataset, "points", property(lambda one: looks.append(one.name) or points))
    take(pipeline.evaluation(examples.from_dataset(dataset, cache_mib=0), PLAIN, INPUT, batch=5))
    assert len(looks) == 1


def test_batches_without_points_do_not_have_them(dataset: Dataset) -> None:
    plain = examples.from_dataset(dataset._replace(keypoints=None))
    (batch,) = take(pipeline.evaluation(plain, PLAIN, INPUT, batch=10))
    assert "gt_keypoints" not in batch
    assert "gt_has_keypoints" not in batch


def test_targets_are_made_of_the_fields_that_they_know(dataset: Dataset) -> None:
    (batch,) = take(pipeline.evaluation(examples.from_dataset(dataset), PLAIN, INPUT, batch=10))
    targets = targets_of({key: tf.constant(value) for key, value in batch.items()})
    np.testing.assert_array_equal(targets.valid, batch["gt_valid"] > 0)
    np.testing.assert_array_equal(targets.classes, batch["gt_classes"])


def test_joined_data_sets_agree_on_their_points(dataset: Dataset) -> None:
    plain = dataset._replace(keypoints=None, name="plain")
    for order in ([dataset, plain], [plain, dataset]):
        assert join(order).keypoints == CORNERS
    assert join([dataset]).keypoints == CORNERS
    assert ordered(dataset, ["none", "all"]).keypoints == CORNERS
    fewer = dataset._replace(name="fewer", keypoints=CORNERS._replace(names=CORNERS.names[:3], flip=()))
    with pytest.raises(BadInput, match=r"scenes \+ fewer: expected the same keypoints in all of them"):
        join([dataset, fewer])
