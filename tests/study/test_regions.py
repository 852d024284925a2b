"""Cached regions: whose masks are in them, when they are made again, and that they teach what the images do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.config import Config
from maskx_tf.config.loader import read
from maskx_tf.data import opening
from maskx_tf.data.dataset import Dataset
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples
from maskx_tf.errors import BadInput
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN
from maskx_tf.ops.batches import targets_of
from maskx_tf.ops.masks import pack_bits
from maskx_tf.ops.sampling import fold_in
from maskx_tf.study import cells, pooling, regions
from tests import disk
from tests.study import small
from tests.training import runs

SETTINGS = {
    "model": {
        "input": {"canvas": [64, 64], "short_side": 64, "long_side": 64},
        "backbone": {"fpn_channels": 16},
        "box": {"width": 16, "rois": 16},
        "mask": {"channels": 16, "convs": 1},
    }
}


class Scene:
    """A data set with two classes in A, seen with the eyes of a method and of the oracle, and an untrained detector."""

    def __init__(self, folder: Path) -> None:
        runs.scenes(folder)
        self.folder = folder
        self.detector = self._model()

    def config(self, masks: str) -> Config:
        data = {"data": {"train": [cells.source(self.folder, "train")], "masks": masks}}
        recipe = small.ROOT / "configs" / "synthetic_agnostic.yaml"
        return read(Config, recipe, settings=[("test", SETTINGS), ("test", data)])

    def dataset(self, masks: str) -> Dataset:
        return opening.training_set(self.config(masks).data)

    def batches(self, masks: str) -> Callable[[], Any]:
        config, held = self.config(masks), examples.from_dataset(self.dataset(masks))
        return lambda: pipeline.evaluation(held, config.data, config.model.input, batch=7)

    def model(self) -> RCNN:
        return self.detector

    def _model(self) -> RCNN:
        names = self.dataset("all").class_names
        made = build(self.config("all").model.model_copy(update={"class_names": names}))
        made.learn(("mask",))
        return made

    def make(self, folder: Path, masks: str = "all", mark: str = "mark", **options: Any) -> pooling.Regions:
        plain = {"images": 14, "per_image": 3, "limit_mib": 100, "mirror": True, "seed": 1}
        model = options.pop("model", self.model)
        with pytest.MonkeyPatch.context() as patch:
            # To make graphs would take most of the time.
            patch.setattr(tf, "function", lambda autograph: lambda function: function)
            return regions.get_or_make(folder, mark, model, self.batches(masks), **{**plain, **options})


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scenes") / "data")


@pytest.fixture(scope="module")
def made(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pooling.Regions]:
    folder = tmp_path_factory.mktemp("regions") / "a"
    return folder, scene.make(folder)


def _unwanted() -> RCNN:
    raise AssertionError("the regions are made again")


def test_regions_hold_every_instance_and_no_mask(
    scene: Scene, made: tuple[Path, pooling.Regions], tmp_path: Path
) -> None:
    has_masks = {one.label for image in scene.dataset("all").images for one in image.instances if one.has_mask}
    assert set(made[1].classes.tolist()) - has_masks
    # The file of B's masks may hold anything: it is not opened.
    kept = scene.folder / "masks_b_train.json"
    text = kept.read_text(encoding="utf-8")
    kept.write_text("not JSON", encoding="utf-8")
    try:
        again = scene.make(tmp_path / "a")
        masks = regions.with_masks(again, scene.batches("all")(), 28)
        with pytest.raises(BadInput, match="masks_b_train"):
            regions.with_masks(again, scene.batches("oracle")(), 28)
    finally:
        kept.write_text(text, encoding="utf-8")
    for before, after in zip(made[1], again, strict=True):
        np.testing.assert_array_equal(before, after)
    assert set(made[1].classes[masks.has_mask > 0].tolist()) <= has_masks
    assert not masks.packed[masks.has_mask == 0].any()


def test_an_image_gives_as_many_regions_as_asked_as_it_is_and_mirrored(
    scene: Scene, made: tuple[Path, pooling.Regions]
) -> None:
    _, counts = np.unique(made[1].images, return_counts=True)
    assert counts.max() == 6
    assert set(made[1].mirrored.tolist()) == {0, 1}
    assert made[1].pooled.dtype == np.float16
    masks = regions.with_masks(made[1], scene.batches("oracle")(), 14)  # 196 cells are no whole number of bytes
    assert np.unpackbits(masks.packed, axis=1)[:, :196].reshape(-1, 14, 14).any(axis=(1, 2)).mean() > 0.9


def test_branches_that_pool_other_regions_share_none(scene: Scene) -> None:
    def kind(**mask: Any) -> str:
        return regions.kind_of(Config(model={"mask": mask}))

    assert kind() == "proposals-14-0"  # as folders are called that are there
    assert len({kind(), kind(rois=4), kind(rois=8), kind(rois=8, pixels=True)}) == 4


def test_regions_that_are_there_are_read(scene: Scene, made: tuple[Path, pooling.Regions]) -> None:
    again = scene.make(made[0], model=_unwanted)
    np.testing.assert_array_equal(again.pooled, made[1].pooled)


@pytest.mark.parametrize(
    "change",
    [{"mark": "weights"}, {"per_image": 2}, {"seed": 2}, {"mirror": False}],
    ids=["weights", "number", "seed", "mirror"],
)
def test_regions_of_something_else_are_made_again(
    scene: Scene, made: tuple[Path, pooling.Regions], change: dict[str, Any]
) -> None:
    copied = _copy(made[0], made[0].parent / "copy")
    with pytest.raises(AssertionError, match="made again"):
        scene.make(copied, model=_unwanted, **change)
    assert not copied.exists()  # what is worthless is gone


def test_regions_that_were_not_finished_are_made_again(scene: Scene, made: tuple[Path, pooling.Regions]) -> None:
    copied = _copy(made[0], made[0].parent / "unfinished")
    (copied / regions.REGIONS_FACTS).unlink()
    with pytest.raises(AssertionError, match="made again"):
        scene.make(copied, model=_unwanted)


def _copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_full_disk_is_one_line_and_leaves_nothing(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise disk.FULL

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(BadInput, match=r"a: cannot be written: No space left on device"):
        scene.make(tmp_path / "a")
    monkeypatch.undo()
    with pytest.raises(KeyboardInterrupt):
        scene.make(tmp_path / "a", model=_interrupted)
    assert not list(tmp_path.iterdir())


def _interrupted() -> RCNN:
    raise KeyboardInterrupt


def test_too_large_a_cache_is_refused(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"regions.limit_mib: expected at least \d+, for 70000 regions"):
        scene.make(tmp_path / "a", images=14_000, per_image=5, limit_mib=1, mirror=False)
    assert not list(tmp_path.iterdir())


def _regions(count: int, known: int) -> tuple[pooling.Regions, regions.VisibleMasks]:
    """Regions that carry their number; the last ones have no mask."""
    numbers = np.arange(count)
    pooled = np.broadcast_to(numbers[:, None, None, None], [count, 2, 2, 1]).astype(np.float16)
    boxes = np.zeros([count, 4], np.float32)
    whole = pooling.Regions(
        pooled=pooled,
        pixels=np.zeros([count, 0], np.uint8),
        classes=numbers.astype(np.int32) + 1,
        boxes=boxes,
        truth_boxes=boxes,
        truths=np.zeros(count, np.int32),
        image_sizes=boxes[:, :2],
        images=numbers,
        mirrored=np.zeros(count, np.uint8),
    )
    return whole, regions.VisibleMasks(np.zeros([count, 2], np.uint8), (numbers < known).astype(np.uint8))


@pytest.mark.parametrize("with_boxes", [False, True])
def test_batches_go_through_all_regions_and_on_from_any_step(with_boxes: bool) -> None:
    held = _regions(8, known=8 if with_boxes else 6)
    total = 8 if with_boxes else 6
    options = {"batch": 4, "seed": 3, "with_boxes": with_boxes}
    batches = list(regions.batches_of(*held, **options).take(6))
    seen = np.concatenate([batch["image_ids"] for batch in batches])
    for epoch in np.split(seen, 24 // total):
        assert sorted(epoch.tolist()) == list(range(total))
    later = list(regions.batches_of(*held, **options, start=2).take(4))
    np.testing.assert_array_equal(np.concatenate([batch["image_ids"] for batch in later]), seen[8:])
    for batch in batches:
        np.testing.assert_array_equal(batch["pooled"][:, 0, 0, 0], batch["image_ids"].numpy())
        np.testing.assert_array_equal(batch["classes"], batch["image_ids"].numpy() + 1)


def test_regions_without_masks_are_refused_unless_boxes_teach() -> None:
    held = _regions(4, known=0)
    with pytest.raises(BadInput, match="expected masks to learn from"):
        regions.batches_of(*held, batch=2, seed=0)
    assert len(list(regions.batches_of(*held, batch=2, seed=0, with_boxes=True).take(2))) == 2


def test_mirrored_images_fit_their_truth(scene: Scene) -> None:
    batch = next(iter(scene.batches("all")()))
    narrow = {**batch, "image_sizes": tf.constant([[64.0, 50.0]] * 7)}
    images, truth = pooling.mirrored(narrow)
    np.testing.assert_array_equal(images[:, :, :50], batch["images"][:, :, :50][:, :, ::-1])
    np.testing.assert_array_equal(images[:, :, 50:], batch["images"][:, :, 50:])
    before = targets_of(batch)
    np.testing.assert_allclose(truth.boxes[..., 0] + before.boxes[..., 2], np.where(before.valid, 50.0, 0.0))
    np.testing.assert_allclose(truth.boxes[..., 1], before.boxes[..., 1])
    np.testing.assert_array_equal(truth.masks, before.masks[..., ::-1])


def test_a_loss_of_pooled_regions_is_that_of_the_images(scene: Scene) -> None:
    model = scene.model()
    batch = next(iter(scene.batches("all")()))
    seeds = tf.constant([[3, 4]] * 7)
    expected = model.batch_losses(batch, seeds)["loss_mask"]
    truth, scene_of = targets_of(batch), model.scene(batch["images"], batch["image_sizes"])
    proposals = model.rpn.train.choose(model.rpn.outputs(scene_of.features), batch["image_sizes"])
    sampled = model.sampled_regions(proposals, truth, seeds)
    own = model.mask.pool_regions(scene_of, model.mask.regions.choose(sampled, truth, fold_in(seeds, 2)), truth)
    flat = own.has_mask | (own.classes == 0)  # background too, which does not count
    count = int(tf.reduce_sum(tf.cast(flat, tf.int32)))
    kept = {
        "pooled": own.pooled[flat],
        "pixels": tf.zeros([count, 0], tf.uint8),
        "classes": own.classes[flat],
        "boxes": own.boxes[flat],
        "truth_boxes": own.truth_boxes[flat],
        "image_sizes": tf.ones([count, 2]),
        "masks": pack_bits(tf.reshape(own.truth, [7, own.truth.shape[1], -1]) > 0.5)[flat],
        "has_mask": tf.cast(own.has_mask[flat], tf.uint8),
    }
    found = model.batch_losses(kept, seeds)["loss_mask"]
    assert float(expected.count) > 0
    np.testing.assert_allclose(found.count, expected.count)
    np.testing.assert_allclose(found.total, expected.total, rtol=1e-5)
