"""Regions of a detector that does not learn: pooled once, kept on disk, and read in any order by the mask branches.

The folder holds features, pixels and boxes of regions of every instance, which depend only on the detector and the
boxes. It holds no masks, so that all splits of a detector share it; `with_masks` crops the masks that a method may see.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf import files
from maskx_tf.checkpoints import folder as model_folder
from maskx_tf.checkpoints import npz
from maskx_tf.config import Config
from maskx_tf.data.pipeline.batches import Batch, order, steady
from maskx_tf.errors import BadInput
from maskx_tf.models.rcnn import RCNN
from maskx_tf.ops import masks as mask_ops
from maskx_tf.ops.batches import targets_of
from maskx_tf.structures import Targets
from maskx_tf.study.pooling import Regions, mirrored_truth, pooled_regions

REGIONS_FACTS = "regions.json"
REGIONS_VERSION = 2


class VisibleMasks(NamedTuple):
    """Which masks of regions a method may see.

    Attributes:
        packed: uint8 [n, M * M / 8, rounded up]; zeros where there is none.
        has_mask: uint8 [n].
    """

    packed: NDArray[np.uint8]
    has_mask: NDArray[np.uint8]


def get_or_make(
    folder: Path,
    mark: str,
    model: Callable[[], RCNN],
    batches: Callable[[], Iterable[Batch]],
    *,
    images: int,
    per_image: int,
    limit_mib: int,
    mirror: bool,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> Regions:
    """Returns the regions in a folder, which are made again if they are missing or have another fingerprint.

    Args:
        folder: the folder in which they are kept.
        mark: a fingerprint of the detector, the settings and the data.
        model: its detector and its pooling are used.
        batches: each image once, as `data.pipeline.batches.evaluation` gives them.
        images: how many there are.
        per_image: the most regions of an image, and of it mirrored.
        limit_mib: see the configuration.
        mirror: whether to look at each image mirrored, too.
        seed: the seed of the sampling among proposals, and of the choice.
        say: receives a line when they are made.

    Raises:
        BadInput: they would be too large, or there are none.
    """
    mark = json.dumps([mark, REGIONS_VERSION, per_image, mirror, seed])
    found = _open(folder, mark)
    if found is not None:
        return found
    say("pooling the regions that the mask branches learn from")
    shutil.rmtree(folder, ignore_errors=True)  # before others are made: they are large
    with files.new_folder(folder) as unfinished:
        count = _write(unfinished, model(), batches, images, per_image, limit_mib, mirror, seed)
        files.write_json(unfinished / REGIONS_FACTS, {"mark": mark, "count": count})
    found = _open(folder, mark)
    assert found is not None
    say(f"{count} regions of {len(np.unique(found.classes))} classes")
    return found


def kind_of(config: Config) -> str:
    """A short name for what a mask branch pools: branches of one kind share their regions."""
    mask = config.model.mask
    jitter = f"{mask.jitter:g}" if mask.regions == "jittered" else ""
    pixels = "-pixels" if _reads_pixels(config) else ""
    rois = "" if mask.rois is None else f"-rois{mask.rois}"
    return f"{mask.regions}{jitter}-{config.model.roi.mask_size}-{mask.margin:g}{pixels}{rois}"


def _reads_pixels(config: Config) -> bool:
    return config.model.mask.pixels or "pairwise" in config.model.mask.box_losses


def mark_of(config: Config) -> str:
    """A fingerprint of what regions are pooled with: the detector's weights, its settings and the data."""
    of_model = config.model.model_dump(mode="json", include={"input", "backbone", "anchors", "rpn", "roi", "box"})
    of_data = config.data.model_dump(mode="json", exclude={"masks"})
    annotations = [files.sha256(path) for source in config.data.train if (path := Path(source.annotations)).is_file()]
    with npz.reading(model_folder.find(str(config.train.weights)) / model_folder.WEIGHTS) as archive:
        return files.digest([of_model, kind_of(config), of_data, annotations], archive.items())


def with_masks(regions: Regions, batches: Iterable[Batch], side: int) -> VisibleMasks:
    """The masks of the regions, as far as a data set shows them.

    Args:
        regions: the regions of the images of the data set.
        batches: each image once, with the masks that a method may see.
        side: M.

    """
    packed = np.zeros([len(regions.classes), -(-side * side // 8)], np.uint8)
    has_mask = np.zeros(len(regions.classes), np.uint8)
    for batch in batches:
        truth = targets_of(batch)
        for place, number in enumerate(np.asarray(batch["image_ids"])):
            for turned in (0, 1):
                rows = np.flatnonzero((regions.images == number) & (regions.mirrored == turned))
                if not rows.size:
                    continue
                one = Targets(*(None if values is None else values[place : place + 1] for values in truth))
                if turned:
                    one = mirrored_truth(one, batch["image_sizes"][place : place + 1])
                truths = tf.constant(regions.truths[rows][None])
                shares = mask_ops.mask_targets(
                    one.masks, one.boxes, tf.constant(regions.boxes[rows][None]), truths, size=side
                )
                known = tf.gather(one.has_mask, truths, batch_dims=1)[0].numpy()
                bits = (shares[0].numpy() >= 0.5) & known[:, None, None]
                packed[rows] = np.packbits(bits.reshape(len(rows), -1), axis=1)
                has_mask[rows] = known
    return VisibleMasks(packed, has_mask)


def batches_of(
    regions: Regions, masks: VisibleMasks, *, batch: int, seed: int, start: int = 0, with_boxes: bool = False
) -> tf.data.Dataset:
    """Endless batches for stage mask (`models.masks.pooled_regions_of`), each region once an epoch.

    Args:
        regions: the regions to learn from.
        masks: the masks of the regions.
        batch: regions a step.
        seed: the seed of the order.
        start: the step of the first batch; it is what a run from step 0 has there.
        with_boxes: whether to include regions without a mask, for losses that learn from boxes.

    Raises:
        BadInput: there is nothing to learn from.
    """
    usable = np.arange(len(regions.classes)) if with_boxes else np.flatnonzero(masks.has_mask)
    if not usable.size:
        raise BadInput("data.train: expected masks to learn from, found none in any region of the detector")
    fields: dict[str, np.ndarray] = {
        "pooled": regions.pooled,
        "pixels": regions.pixels,
        "classes": regions.classes,
        "boxes": regions.boxes,
        "truth_boxes": regions.truth_boxes,
        "image_sizes": regions.image_sizes,
        "masks": masks.packed,
        "has_mask": masks.has_mask,
        "image_ids": regions.images,
    }

    def load(step: NDArray[np.int64]) -> list[np.ndarray]:
        places = range(int(step) * batch, (int(step) + 1) * batch)
        total = len(usable)
        rows = usable[[order(total, seed, place // total)[place % total] for place in places]]
        return [values[rows] for values in fields.values()]

    def one(step: tf.Tensor) -> Batch:
        parts = tf.numpy_function(load, [step], [values.dtype for values in fields.values()])
        return {
            name: tf.ensure_shape(part, [batch, *values.shape[1:]])
            for part, (name, values) in zip(parts, fields.items(), strict=True)
        }

    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    return steps.map(tf.autograph.experimental.do_not_convert(one)).prefetch(2).with_options(steady())


def _open(folder: Path, mark: str) -> Regions | None:
    try:
        facts: Any = files.read_json(folder / REGIONS_FACTS)
        if facts["mark"] != mark:
            return None
        count = int(facts["count"])
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r")[:count] for name in Regions._fields]
    except (BadInput, OSError, ValueError, KeyError, TypeError):
        return None  # not finished, damaged, or not there
    return Regions(*arrays)


def _write(
    folder: Path,
    model: RCNN,
    batches: Callable[[], Iterable[Batch]],
    images: int,
    per_image: int,
    limit_mib: int,
    mirror: bool,
    seed: int,
) -> int:
    """Fills the arrays, which are as long as they might have to be, and returns how many regions there are."""
    views = 2 if mirror else 1
    most = images * views * min(per_image, model.mask.regions.size)
    generator = np.random.default_rng(seed)
    held: Regions | None = None
    count = 0
    for found in pooled_regions(model, batches(), views, seed):
        if held is None:
            held = _allocate(folder, found, most, limit_mib)
        for rows in _chosen(found.images, per_image, generator):
            for file, values in zip(held, found, strict=True):
                file[count : count + len(rows)] = values[rows]
            count += len(rows)
    if not count or held is None:
        raise BadInput("data.train: expected instances to learn from, found none in any region of the detector")
    for file in held:
        file.flush()  # type: ignore[attr-defined]  # of a mapped file
    return count


def _allocate(folder: Path, like: Regions, most: int, limit_mib: int) -> Regions:
    size = most * sum(values[:1].nbytes for values in like) >> 20
    if size > limit_mib:
        raise BadInput(
            f"regions.limit_mib: expected at least {size}, for {most} regions; or lower regions.per_image, "
            f"found {limit_mib}"
        )
    return Regions(
        *(
            _mapped(folder / f"{name}.npy", values.dtype, (most, *values.shape[1:]))
            for name, values in zip(Regions._fields, like, strict=True)
        )
    )


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """A new file of an array, mapped into memory, for which the disk has room."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:  # otherwise a full disk would end the process when a page is written
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _chosen(images: NDArray[np.int64], per_image: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """For each image of a batch, which of its regions are kept."""
    for image in np.unique(images):
        rows = np.flatnonzero(images == image)
        yield np.sort(generator.permutation(rows)[:per_image])
