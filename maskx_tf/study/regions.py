"""Regions of a detector that does not learn: pooled once, kept on disk, and read in any order by the mask branches.

A folder holds regions.json, written last, and arrays that are mapped into memory. It is made from what the one door to
training shows (`data.readers.for_training`): where that has no mask of B, no mask of B is in the folder, and a method
that is no oracle opens no other folder.
"""

from __future__ import annotations

import json
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
from maskx_tf.ops import sampling
from maskx_tf.ops.batches import targets_of
from maskx_tf.ops.masks import pack_bits
from maskx_tf.structures import Targets

FACTS = "regions.json"
VERSION = 1


class Regions(NamedTuple):
    """Regions with masks to learn from.

    Attributes:
        pooled: float16 [n, size, size, C].
        classes: int32 [n].
        masks: uint8 [n, M * M / 8], packed.
        images: int64 [n], the number of each region's image.
    """

    pooled: NDArray[Any]
    classes: NDArray[Any]
    masks: NDArray[Any]
    images: NDArray[Any]


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
    """The regions in a folder, made anew where it has none, or those of something else.

    Args:
        folder: where they are kept.
        mark: a fingerprint of the detector, the settings and the data.
        model: its detector and its pooling are used.
        batches: each image once, as `data.pipeline.evaluation` gives them.
        images: how many there are.
        per_image: the most regions of an image, and of it mirrored.
        limit_mib: see the configuration.
        mirror: whether to look at each image mirrored, too.
        seed: of the sampling among proposals, and of the choice.
        say: is told that they are made.

    Raises:
        BadInput: they would be too large, or there are none.
    """
    mark = json.dumps([mark, VERSION, per_image, mirror, seed])
    found = _open(folder, mark)
    if found is not None:
        return found
    say("pooling the regions that the mask branches learn from")
    shutil.rmtree(folder, ignore_errors=True)  # before others are made: they are large
    with files.new_folder(folder) as unfinished:
        count = _write(unfinished, model(), batches, images, per_image, limit_mib, mirror, seed)
        files.write_json(unfinished / FACTS, {"mark": mark, "count": count})
    found = _open(folder, mark)
    assert found is not None
    say(f"{count} regions of {len(np.unique(found.classes))} classes")
    return found


def mark_of(config: Config) -> str:
    """A fingerprint of what regions are pooled with: the detector's weights, its settings, the data and the masks."""
    of_model = config.model.model_dump(mode="json", include={"input", "backbone", "anchors", "rpn", "roi", "box"})
    facts = [of_model, config.model.mask.regions, config.model.mask.jitter, config.data.model_dump(mode="json")]
    with npz.reading(model_folder.find(str(config.train.weights)) / model_folder.WEIGHTS) as archive:
        return files.digest([*facts, *_contents(config)], archive.items())


def _contents(config: Config) -> list[str]:
    """Checksums of the annotations."""
    paths = [Path(source.annotations) for source in config.data.train]
    if config.data.masks == "oracle":
        paths += [Path(source.masks_b) for source in config.data.train if source.masks_b]
    return [files.sha256(path) for path in paths if path.is_file()]


def batches_of(regions: Regions, *, batch: int, seed: int, start: int = 0) -> tf.data.Dataset:
    """Endless batches for stage mask (`MaskBranch.losses_of_pooled`), each region once an epoch.

    Args:
        regions: to learn from.
        batch: regions a step.
        seed: of the order.
        start: the step of the first batch; it is what a run from step 0 has there.
    """
    total = len(regions.classes)

    def load(step: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        places = np.arange(int(step) * batch, (int(step) + 1) * batch)
        rows = np.array([order(total, seed, int(place) // total)[int(place) % total] for place in places])
        return tuple(values[rows] for values in regions)

    def one(step: tf.Tensor) -> Batch:
        parts = tf.numpy_function(load, [step], [values.dtype for values in regions])
        shaped = [tf.ensure_shape(part, [batch, *of.shape[1:]]) for part, of in zip(parts, regions, strict=True)]
        return dict(zip(("pooled", "classes", "masks", "image_ids"), shaped, strict=True))

    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    return steps.map(tf.autograph.experimental.do_not_convert(one)).prefetch(2).with_options(steady())


def mirrored(batch: Batch) -> tuple[tf.Tensor, Targets]:
    """The images of a batch left to right, each within its own width, and the truth about them."""
    truth = targets_of(batch)
    widths = batch["image_sizes"][:, 1]
    images = tf.reverse_sequence(batch["images"], tf.cast(widths, tf.int32), seq_axis=2, batch_axis=0)
    x1, y1, x2, y2 = tf.unstack(truth.boxes, axis=-1)
    turned = tf.stack([widths[:, None] - x2, y1, widths[:, None] - x1, y2], axis=-1)
    boxes = tf.where(truth.valid[..., None], turned, 0.0)
    return images, truth._replace(boxes=boxes, masks=tf.reverse(truth.masks, [-1]))


def _open(folder: Path, mark: str) -> Regions | None:
    try:
        facts = files.read_json(folder / FACTS)
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
    """Fills the arrays, which are as long as they might have to be, and gives how many regions there are."""
    views = 2 if mirror else 1
    most = images * views * min(per_image, model.mask.regions.size)
    generator = np.random.default_rng(seed)
    files: Regions | None = None
    count = 0
    for found in _found(model, batches, views, seed):
        if files is None:
            files = _allocate(folder, found, most, limit_mib)
        for rows in _chosen(found.images, per_image, generator):
            for file, values in zip(files, found, strict=True):
                file[count : count + len(rows)] = values[rows]
            count += len(rows)
    if not count or files is None:
        raise BadInput("data.train: expected masks to learn from, found none in any region of the detector")
    for file in files:
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
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", values.dtype, (most, *values.shape[1:]))
            for name, values in zip(Regions._fields, like, strict=True)
        )
    )


def _chosen(images: NDArray[np.int64], per_image: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """For each image of a batch, which of its regions are kept."""
    for image in np.unique(images):
        rows = np.flatnonzero(images == image)
        yield np.sort(generator.permutation(rows)[:per_image])


def _found(model: RCNN, batches: Callable[[], Iterable[Batch]], views: int, seed: int) -> Iterator[Regions]:
    """The regions with a mask of each batch, as it is and mirrored."""
    seeds = tf.constant([seed % 2**31, 0])

    def pool(images: tf.Tensor, sizes: tf.Tensor, truth: Targets, own: tf.Tensor) -> tuple[tf.Tensor, ...]:
        scene = model.scene(images, sizes)
        proposals = model.rpn.train.choose(model.rpn.outputs(scene.features), sizes)
        found = model.mask.pool_regions(scene, model.sampled_regions(proposals, truth, own), truth, own)
        flat = tf.reshape(found.truth, [tf.shape(found.truth)[0], found.truth.shape[1], -1])
        return tf.cast(found.pooled, tf.float16), found.classes, pack_bits(flat > 0.5), found.has_mask

    @tf.function(autograph=False)
    def plain(batch: Batch, own: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return pool(batch["images"], batch["image_sizes"], targets_of(batch), own)

    @tf.function(autograph=False)
    def turned(batch: Batch, own: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images, truth = mirrored(batch)
        return pool(images, batch["image_sizes"], truth, own)

    for number, batch in enumerate(batches()):
        for way, view in enumerate((plain, turned)[:views]):
            own = sampling.fold_in(sampling.fold_in(seeds, number), way)
            pooled, classes, masks, has_mask = view(batch, own)
            images = np.broadcast_to(batch["image_ids"].numpy()[:, None], classes.shape)
            kept = has_mask.numpy()
            if kept.any():
                yield Regions(pooled.numpy()[kept], classes.numpy()[kept], masks.numpy()[kept], images[kept])
