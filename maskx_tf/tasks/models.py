"""Opens the models that tasks work with: folders, recipes, published weights and models on hubs by name."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskx_tf.checkpoints import io
from maskx_tf.config import Config
from maskx_tf.config import load as load_config
from maskx_tf.errors import BadInput, reason
from maskx_tf.files import AnyPath, Json
from maskx_tf.importers.plan import ImportRequest
from maskx_tf.importers.published import NAMED_WEIGHTS, cache, fetch, lookup
from maskx_tf.importers.run import import_file
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN
from maskx_tf.prediction.images import ImagePredictor, keypoints_of
from maskx_tf.prediction.views import Look, agreed, views_of
from maskx_tf.structures import Detections
from maskx_tf.tasks.progress import SILENT, Progress

# The client of each hub: its module, its function that downloads a model's folder, and the package to install.
HUBS = {
    "hf://": ("huggingface_hub", "snapshot_download", "huggingface_hub"),
    "kaggle://": ("kagglehub", "model_download", "kagglehub"),
}
MIB = 1 << 20


@dataclass(frozen=True, eq=False)
class Model:
    """A model with its configuration and its history.

    Attributes:
        network: the Keras model, with its weights.
        config: the configuration that it was built from.
        meta: its history, from model.json; empty for the model of a recipe.
        source: the folder or recipe that was opened; None for a model that was made by hand.
    """

    network: RCNN
    config: Config
    meta: Json
    source: Path | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes 1..K."""
        return self.config.model.class_names

    @property
    def classes_a(self) -> frozenset[str] | None:
        """The classes whose masks training saw; None where this is not known."""
        known = self.meta.get("a_classes")
        return None if known is None else frozenset(known)

    @property
    def category_ids(self) -> tuple[int, ...] | None:
        """The data set's id of each class 1..K; None where this is not known."""
        known = self.meta.get("category_ids")
        return None if known is None else tuple(int(number) for number in known)

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """The pairs of keypoints between which a line is drawn."""
        return keypoints_of(self.config.model).skeleton

    @property
    def name(self) -> str:
        """The name of the run, or of the folder or file that was opened."""
        if self.source is None:
            return self.config.model.family
        path = self.source.resolve()
        # A run's final model and its checkpoints have the same names in every run.
        if path.parent.name == "checkpoints":
            return f"{path.parent.parent.name} {path.name}"
        return path.parent.name if path.name == "model" else path.name

    @property
    def predictor(self) -> ImagePredictor:
        """Finds objects in images; see `predictor_above`."""
        return self.predictor_above(None)

    def predictor_above(self, score: float | None) -> ImagePredictor:
        """Finds objects that score more than this, or than the model's own threshold. Its graphs are compiled once."""
        return self._predictors.setdefault(score, ImagePredictor(self.network, self.config.model, score))

    @cached_property
    def _predictors(self) -> dict[float | None, ImagePredictor]:
        return {}


ModelOrPath = Model | AnyPath


def is_recipe(path: AnyPath) -> bool:
    """Whether the path names a recipe, which has no weights, rather than a folder."""
    return Path(path).suffix in (".yaml", ".yml")


def load(path: AnyPath, class_names: Sequence[str] = ()) -> Model:
    """Opens the model of a run, checkpoint or model folder; of a recipe, builds one with random weights.

    Args:
        path: the folder, the recipe's .yaml file, or a name that `local` knows.
        class_names: the classes, for a recipe that names none.

    Raises:
        BadInput: it is no such folder or recipe, or it is damaged.
    """
    source = local(path)
    if is_recipe(source):
        config = load_config(source)
        config = config.with_classes(config.model.class_names or tuple(class_names))
        return Model(build(config.model), config, {}, source)
    loaded = io.open_model(source)
    return Model(loaded.model, loaded.config, loaded.meta, source)


def finder(
    models: Sequence[Model], augment: bool | Sequence[int] = False, score: float | None = None
) -> Callable[[NDArray[np.uint8]], Detections]:
    """Returns the function that finds objects in the pixels of an image, uint8 [H, W, 3].

    Args:
        models: one, or an ensemble, whose first member suppresses what overlaps.
        augment: see `prediction.views.views_of`.
        score: detections score more than this; None stands for the models' own thresholds.

    Raises:
        BadInput: the members of an ensemble differ in what has to be the same.
    """
    first = models[0]
    for other in models[1:]:
        for what in ("class_names", "outputs", "keypoint.names", "detections.paste"):
            ours, theirs = (functools.reduce(getattr, what.split("."), one.config.model) for one in (first, other))
            if ours != theirs:
                raise BadInput(f"{other.name}: expected the model.{what} of {first.name} for an ensemble, found others")
    made = [model.predictor_above(score) for model in models]
    for predictor in made:
        predictor.refresh()
    looks = [Look(one, view) for one in made for view in views_of(one.config, augment)]
    return made[0] if len(looks) == 1 else functools.partial(agreed, looks)


def opened(model: ModelOrPath, class_names: Sequence[str] = ()) -> Model:
    """The model itself, or the one that `load` opens at the path."""
    return model if isinstance(model, Model) else load(model, class_names)


def download(name: str, progress: Progress = SILENT) -> tuple[str, Path]:
    """The program and the file of published weights such as torchvision:maskrcnn_resnet50_fpn.

    Raises:
        BadInput: there is no such name, or its file cannot be had.
    """
    file = lookup(name)

    def report(done: int, total: int) -> None:
        progress.started(total // MIB)
        progress.at(done // MIB, f"downloading {name}, MiB")

    return file.program, fetch(file, report)


def local(model: AnyPath, progress: Progress = SILENT) -> Path:
    """Returns the folder of a model on this machine; fetches published weights and hubs' folders once.

    Args:
        model: a path, which is returned as it is; or a name such as torchvision:maskrcnn_resnet50_fpn,
            hf://OWNER/MODEL or kaggle://OWNER/MODEL/FRAMEWORK/VARIATION.
        progress: sees the download.

    Raises:
        BadInput: there is no such name, it cannot be had, or a hub's client is not installed.
    """
    name = str(model)
    for scheme, (module, function, package) in HUBS.items():
        if name.startswith(scheme):
            return _from_hub(name, name.removeprefix(scheme), module, function, package)
    if not NAMED_WEIGHTS.fullmatch(name):
        return Path(model)
    folder = cache() / "models" / name.replace(":", "/")
    if not folder.is_dir():
        program, file = download(name, progress)
        import_file(program, ImportRequest(file), folder)
    return folder


def _from_hub(name: str, handle: str, module: str, function: str, package: str) -> Path:
    try:
        client = importlib.import_module(module)
    except ImportError:
        raise BadInput(f"{name}: expected the package {package}: pip install {package}") from None
    try:
        return Path(getattr(client, function)(handle))
    except Exception as error:  # each client has its own, of networks, accounts and names
        raise BadInput(f"{name}: {package} cannot fetch it: {reason(error)}") from None
