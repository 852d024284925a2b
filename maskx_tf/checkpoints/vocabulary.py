"""Surgery on a model's vocabulary: classes are rows of weights, so they can be added, dropped and put in order.

Nothing else of the model changes. In family mask_x_rcnn the transfer function makes mask filters of the rows of a new
class at once; in family mask_rcnn a class has its own mask rows, which need training.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskx_tf.checkpoints import npz
from maskx_tf.checkpoints.folder import TABLE
from maskx_tf.checkpoints.io import build_with
from maskx_tf.checkpoints.settings import resolve
from maskx_tf.checkpoints.variables import arrays, named
from maskx_tf.config import Config
from maskx_tf.errors import BadInput, listed, shorten
from maskx_tf.files import Json
from maskx_tf.models.rcnn import RCNN

ClassRows = dict[str, np.ndarray]
# Standard deviations with which the rows of new models start; other masks start by fan-out, biases at zero.
DEVIATIONS = {"box_predictor/class_rows": 0.01, "box_predictor/box_rows": 0.001, "mask_head/rows": 0.001}
# What the rows of a class are called in a file, and the variables that hold them; a model has some of these.
VARIABLES = {
    "class_rows": ("box_predictor/class_rows",),
    "class_bias": ("box_predictor/class_bias",),
    "box_rows": ("box_predictor/box_rows",),
    "box_bias": ("box_predictor/box_bias",),
    "mask_rows": ("mask_head/predictor/rows", "mask_head/rows"),
    "mask_bias": ("mask_head/predictor/bias", "mask_head/bias"),
    "embedding": (TABLE,),
}
# What may change where a detector gets masks. Most of the other settings say what its weights mean.
NOT_DETECTOR: dict[str, bool | set[str]] = {
    **dict.fromkeys(("family", "mask", "transfer", "detections"), True),
    "roi": {"mask_size"},
}


class ClassVariable(NamedTuple):
    """A variable with a row for each class.

    Attributes:
        variable: its name.
        first: index of class 1: 1 behind a row for the background, else 0.
        shape: the shape of a row.
    """

    variable: str
    first: int
    shape: tuple[int, ...]


def parts(model: RCNN, config: Config) -> dict[str, ClassVariable]:
    """The variables of a model that have a row for each class, by what such rows are called in a file.

    Raises:
        BadInput: the family has none.
    """
    agnostic = set()
    if config.model.box.class_agnostic:
        agnostic |= {"box_rows", "box_bias"}
    if config.model.mask.outputs == "agnostic":
        agnostic |= {"mask_rows", "mask_bias"}
    variables, classes = named(model), len(config.model.class_names)
    found = {
        kind: ClassVariable(name, variables[name].shape[0] - classes, tuple(variables[name].shape[1:]))
        for kind, candidates in VARIABLES.items()
        for name in candidates
        if name in variables and kind not in agnostic
    }
    if not found:
        family = config.model.family
        raise BadInput(
            f"expected a model with rows of classes, found family {family}, whose classes share their maps' cells"
        )
    return found


def keep(model: RCNN, config: Config, names: Sequence[str]) -> tuple[RCNN, Config]:
    """A model of the named classes alone, in the order in which they are named.

    Raises:
        BadInput: a class is unknown, named twice, or none is left.
    """
    if not names:
        raise BadInput("expected at least one class to stay")
    old = _known(config, names)
    for name in names:
        if list(names).count(name) > 1:
            raise BadInput(f"expected no class twice, found {name}")
    index = np.array([old[name] for name in names])
    return _rebuilt(model, config, names, dict.fromkeys(parts(model, config), (index, None)))


def reorder(model: RCNN, config: Config, names: Sequence[str]) -> tuple[RCNN, Config]:
    """Returns a model with the named classes first, in this order; the others follow in their old order.

    Raises:
        BadInput: a class is unknown, or named twice.
    """
    return keep(model, config, [*names, *(name for name in config.model.class_names if name not in set(names))])


def drop(model: RCNN, config: Config, names: Sequence[str]) -> tuple[RCNN, Config]:
    """A model without some of the classes.

    Raises:
        BadInput: a class is unknown, or none is left.
    """
    _known(config, names)
    return keep(model, config, [name for name in config.model.class_names if name not in set(names)])


def add(model: RCNN, config: Config, names: Sequence[str], rows: Mapping[str, np.ndarray]) -> tuple[RCNN, Config]:
    """Returns a model with more classes after the existing ones.

    Args:
        model: the model.
        config: its configuration.
        names: the names of the new classes.
        rows: theirs, by what `parts` calls them, [classes, ...]; see `fresh`, `like` and `read`.

    Raises:
        BadInput: a class is there already, or rows are missing, surplus or of a wrong shape.
    """
    for name in names:
        if name in config.model.class_names or list(names).count(name) > 1:
            raise BadInput(f"expected names that are new, found {name} twice")
    wanted = parts(model, config)
    if set(rows) != set(wanted):
        raise BadInput(f"rows of new classes: expected {listed(wanted, 9)}, found {listed(rows, 9) or 'none'}")
    for kind, part in wanted.items():
        _check(f"rows of new classes: {kind}", rows[kind], (len(names), *part.shape))
    every = np.arange(len(config.model.class_names))
    changes = {kind: (every, np.asarray(rows[kind], np.float32)) for kind in wanted}
    return _rebuilt(model, config, [*config.model.class_names, *names], changes)


def fresh(model: RCNN, config: Config, count: int, seed: int) -> ClassRows:
    """Random rows for new classes, of the size with which a new model starts.

    Raises:
        BadInput: T reads a fixed table, in which random rows would mean nothing.
    """
    generator, rows = np.random.default_rng(seed), {}
    fan_out = (2.0 / len(config.model.class_names)) ** 0.5
    for kind, part in parts(model, config).items():
        if kind == "embedding":
            raise BadInput("T reads a table of embeddings: expected those of the new classes, with --from FILE.npz")
        deviation = 0.0 if kind.endswith("_bias") else DEVIATIONS.get(part.variable, fan_out)
        rows[kind] = (deviation * generator.standard_normal((count, *part.shape))).astype(np.float32)
    return rows


def like(model: RCNN, config: Config, name: str, count: int) -> ClassRows:
    """The rows of a class, for each of some new ones.

    Raises:
        BadInput: the class is unknown.
    """
    index, variables = _known(config, [name])[name], named(model)
    return {
        kind: np.repeat(variables[part.variable].numpy()[part.first + index][None], count, axis=0)
        for kind, part in parts(model, config).items()
    }


def read(path: Path, model: RCNN, config: Config, count: int) -> ClassRows:
    """The rows of new classes in an .npz file: those of `parts`, of which biases may be absent and are then zero.

    Raises:
        BadInput: the file is damaged, or rows are missing, surplus or of a wrong shape.
    """
    wanted = parts(model, config)
    biases = {kind: np.zeros((count, *part.shape), np.float32) for kind, part in wanted.items() if "_bias" in kind}
    with npz.reading(path) as archive:
        if set(archive.names) | set(biases) != set(wanted):
            raise BadInput(f"{path}: expected {listed(wanted, 9)}, found {listed(archive.names, 9)}")
        for kind in archive.names:
            _check_shape(f"{path}: {kind}", archive.header(kind).shape, (count, *wanted[kind].shape))
        rows = biases | dict(archive.items())
    for kind in archive.names:
        _check(f"{path}: {kind}", rows[kind], (count, *wanted[kind].shape))
    return rows


def attach_masks(model: RCNN, config: Config, overrides: Sequence[str] = ()) -> tuple[RCNN, Config]:
    """Returns a Mask^X R-CNN made of a Faster R-CNN: T and the mask head are new and untrained.

    Args:
        model: the detector, whose weights all stay.
        config: its configuration.
        overrides: settings of the new branch, such as "model.transfer.layers=3".

    Raises:
        BadInput: the model has masks already, or an override does not fit or changes more than the new branch.
    """
    if "masks" in config.model.outputs:
        raise BadInput(f"expected a model of family faster_rcnn, found {config.model.family}, which has masks")
    settings = config.model_dump(mode="json")
    settings["model"]["family"] = "mask_x_rcnn"
    attached = resolve(settings, overrides)
    if attached.model.family not in ("mask_rcnn", "mask_x_rcnn"):
        raise BadInput(f"model.family: expected a family with a mask head, found {attached.model.family}")
    old, new = config.model.model_dump(exclude=NOT_DETECTOR), attached.model.model_dump(exclude=NOT_DETECTOR)
    changed = [f"model.{name}" for name in old if old[name] != new[name]]
    if changed:
        raise BadInput(f"expected settings that leave the detector as it is, found others in {listed(changed)}")
    result = build_with(attached.model, None)
    _assign(result, arrays(model))
    return result, attached


def category_ids(ids: Sequence[int] | None, old: Sequence[str], new: Sequence[str]) -> list[int] | None:
    """Returns data set ids for a changed vocabulary; new classes get numbers after the highest."""
    if ids is None:
        return None
    known, following = dict(zip(old, ids, strict=True)), itertools.count(max(ids) + 1)
    return [known[name] if name in known else next(following) for name in new]


def _known(config: Config, names: Iterable[str]) -> dict[str, int]:
    """Index of each class from 0; every name must be one of them."""
    index = {name: number for number, name in enumerate(config.model.class_names)}
    for name in names:
        if name not in index:
            raise BadInput(f"expected classes of the model, found {name}")
    return index


def _check_shape(where: str, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if found != shape:
        raise BadInput(f"{where}: expected shape {list(shape)}, found {list(found)}")


def _check(where: str, rows: np.ndarray, shape: tuple[int, ...]) -> None:
    _check_shape(where, rows.shape, shape)
    if not np.issubdtype(rows.dtype, np.floating) or not np.isfinite(rows).all():
        raise BadInput(f"{where}: expected finite floating point numbers")


def _rebuilt(
    model: RCNN, config: Config, names: Sequence[str], changes: Mapping[str, tuple[np.ndarray, np.ndarray | None]]
) -> tuple[RCNN, Config]:
    """Returns the model with other classes: for each part the old rows to keep, by index, then new ones."""
    values = dict(arrays(model))
    for kind, part in parts(model, config).items():
        index, new = changes[kind]
        old = values[part.variable]
        kept = old[np.concatenate([np.arange(part.first), part.first + index])]
        values[part.variable] = kept if new is None else np.concatenate([kept, new])
    renamed = _with_names(config, names)
    result = build_with(renamed.model, values.get(TABLE))
    _assign(result, values.items())
    return result, renamed


def _assign(model: RCNN, values: Iterable[tuple[str, np.ndarray]]) -> None:
    variables = named(model)
    for name, value in values:
        variables[name].assign(value)


def _policy_for(names: Sequence[str], masks: str | list[str] | Json | None) -> str | list[str] | Json | None:
    """Returns a masks policy without the removed classes.

    Raises:
        BadInput: it selects classes by their places or names, so it would mean others in another vocabulary.
    """
    if isinstance(masks, list):
        return [name for name in masks if name in names] or "none"
    if masks not in (None, "all", "none", "oracle"):
        raise BadInput(f"masks: expected all, none, oracle or a list of classes, found {shorten(masks)}")
    return masks


def _with_names(config: Config, names: Sequence[str]) -> Config:
    settings = config.model_dump(mode="json")
    settings["model"]["class_names"] = list(names)
    for section in (settings["data"], settings["evaluate"]):
        section["masks"] = _policy_for(names, section["masks"])
    keypoint = config.model.keypoint
    if keypoint.use:
        # Of no class named, all have keypoints; those that are added have none.
        having = keypoint.classes or config.model.class_names
        left = [name for name in having if name in names]
        if not left:
            raise BadInput(f"expected a class with keypoints to be left, such as {having[0]}")
        settings["model"]["keypoint"]["classes"] = [] if set(left) == set(names) else left
    return resolve(settings)
