"""Changes the classes of a model folder, and writes a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras

from maskx_tf.checkpoints import folder, io
from maskx_tf.checkpoints import vocabulary as surgery
from maskx_tf.checkpoints.settings import resolve
from maskx_tf.config import Config
from maskx_tf.data import splits
from maskx_tf.errors import BadInput
from maskx_tf.models.rcnn import RCNN

Change = Callable[[RCNN, Config], tuple[RCNN, Config]]


class Changed(NamedTuple):
    """The result of a change.

    Attributes:
        config: the configuration of the new model.
        before: the class names of the old model.
    """

    config: Config
    before: tuple[str, ...]


def add(
    model: Path,
    out: Path,
    names: Sequence[str],
    *,
    rows: Path | None = None,
    like: str | None = None,
    seed: int = 0,
) -> Changed:
    """Adds classes at the end.

    Args:
        model: a model or run folder.
        out: the folder of the new model.
        names: the names of the new classes.
        rows: a file with their rows of weights; see `checkpoints.vocabulary.read`.
        like: the class whose rows are copied, without `rows`.
        seed: the seed of random rows, without `rows` and `like`.

    Raises:
        BadInput: a class is there already, or the rows do not fit the model.
    """

    def change(network: RCNN, config: Config) -> tuple[RCNN, Config]:
        if rows is not None:
            new = surgery.read(rows, network, config, len(names))
        elif like is not None:
            new = surgery.like(network, config, like, len(names))
        else:
            new = surgery.fresh(network, config, len(names), seed)
        return surgery.add(network, _listed(config), names, new)

    return _change(model, out, f"added {', '.join(names)}", change)


def drop(model: Path, out: Path, names: Sequence[str]) -> Changed:
    """Drops classes; the weights of the others stay as they are."""
    return _change(
        model, out, f"dropped {', '.join(names)}", lambda network, config: surgery.drop(network, _listed(config), names)
    )


def reorder(model: Path, out: Path, names: Sequence[str], *, only: bool = False) -> Changed:
    """Puts the named classes first, in this order, and the others behind them; with `only`, drops the others."""
    change, what = (surgery.keep, "kept") if only else (surgery.reorder, "put first")
    return _change(
        model, out, f"{what} {', '.join(names)}", lambda network, config: change(network, _listed(config), names)
    )


def attach_masks(model: Path, out: Path, overrides: Sequence[str] = (), *, seed: int = 0) -> Changed:
    """Makes a Mask^X R-CNN of a Faster R-CNN.

    Args:
        model: a model or run folder.
        out: the folder of the new model.
        overrides: texts such as "model.mask.mlp_branch=lean".
        seed: the seed of the new weights.
    """
    keras.utils.set_random_seed(seed)
    return _change(
        model, out, "attached masks", lambda network, config: surgery.attach_masks(network, config, overrides)
    )


def _change(model: Path, out: Path, what: str, change: Change) -> Changed:
    """Opens a model, changes it, and writes it with what was done to it."""
    folder.refuse_other(out)
    loaded = io.open_model(model)
    network, config = change(loaded.model, loaded.config)
    old, new = loaded.config.model.class_names, config.model.class_names
    meta = {
        **loaded.meta,
        "category_ids": surgery.category_ids(loaded.meta.get("category_ids"), old, new),
        "changes": [*loaded.meta.get("changes", []), what],
    }
    io.save(network, config, out, **meta)
    return Changed(config, old)


def _listed(config: Config) -> Config:
    """The same with A as a list of classes, where its policy would select other classes of another vocabulary."""
    settings, names = config.model_dump(mode="json"), config.model.class_names
    for section in ("data", "evaluate"):
        masks = settings[section]["masks"]
        if masks not in (None, "all", "none", "oracle") and not isinstance(masks, list):
            try:
                chosen = splits.a_classes(splits.parse(masks), names)
            except BadInput as error:
                raise BadInput(f"the model's config.yaml: {section}.{error}") from None
            settings[section]["masks"] = [name for name in names if name in chosen] or "none"
    return resolve(settings)
