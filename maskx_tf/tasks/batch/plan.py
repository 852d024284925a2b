"""The plan of a job: its shards of images, its model and its settings. Planning does without TensorFlow.

plan.json            the model, its checksum, the settings, the id of the plan, how many images each shard has
inputs/00000.json    the images of the first shard, and so on
rows/                the files of rows, one for each shard that is done; their names hold the id of the plan
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from maskx_tf import files
from maskx_tf.checkpoints import folder as model_folder
from maskx_tf.config.explain import validated
from maskx_tf.errors import BadInput, reason
from maskx_tf.files import Json
from maskx_tf.masks.steps import MaskSteps
from maskx_tf.tasks.batch import arrow
from maskx_tf.tasks.batch import items as item_ops
from maskx_tf.tasks.batch.items import ImagePlace

if TYPE_CHECKING:
    import pyarrow as pa

PLAN_FORMAT = 1
PLAN_FILE, INPUTS_FOLDER, ROWS_FOLDER = "plan.json", "inputs", "rows"
ID_LETTERS = 12  # letters of a checksum
IMAGES_OF_A_SHARD = 1000


class BoxFile(BaseModel):
    """The boxes of a labelling job.

    Attributes:
        images: the folder of the images; absolute.
        annotations: the COCO file; absolute.
        digest: its checksum.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    images: str
    annotations: str
    digest: str


class BatchSettings(BaseModel):
    """The settings that a job's rows depend on, except for its model and its images.

    Attributes:
        score: see `Segmenter`.
        batch: see `Segmenter`.
        column: see `items.find`.
        boxes: the boxes of a job that makes masks of given boxes; None for one that finds objects.
        refine: see `MaskSteps`; of a job with boxes.
        disjoint: see `MaskSteps`; of a job with boxes.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    score: Annotated[float, Field(ge=0, le=1)] | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    column: str = "image"
    boxes: BoxFile | None = None
    refine: bool = False
    disjoint: bool = False

    @property
    def steps(self) -> MaskSteps:
        """Between the model's masks and those of a job with boxes."""
        return MaskSteps(refine=self.refine, disjoint=self.disjoint)


USUAL_SETTINGS = BatchSettings()


class _PlanFile(BaseModel):
    """The contents of plan.json.

    Attributes:
        format: the version of the format.
        id: the id of the plan: of its images, its model and its settings.
        model: the path of the model; absolute.
        model_digest: the checksum that the model had.
        settings: see `BatchSettings`.
        counts: how many images each shard has.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: int
    id: Annotated[str, Field(pattern=f"^[0-9a-f]{{{ID_LETTERS}}}$")]
    model: str
    model_digest: str
    settings: BatchSettings
    counts: list[Annotated[int, Field(ge=1)]]


class BatchJob(_PlanFile):
    """A planned job, with what its plan holds.

    Attributes:
        folder: the folder of the job.
    """

    folder: Path

    def output(self, number: int) -> Path:
        """The file of a shard's rows, which is there when the shard is done."""
        return self.folder / ROWS_FOLDER / f"{self.id}-{number:05}.parquet"

    def lock(self, number: int) -> Path:
        """The file that is locked while a shard runs; pyarrow skips its name, which begins with a dot."""
        return self.folder / ROWS_FOLDER / f".{number:05}.lock"

    @property
    def columns(self) -> pa.Schema:
        """The columns of its rows."""
        return arrow.schema(with_annotations=self.settings.boxes is not None)

    @property
    def missing(self) -> list[int]:
        """The shards that are not done."""
        return [number for number in range(len(self.counts)) if not self.output(number).exists()]

    def inputs(self, number: int) -> tuple[list[ImagePlace], dict[str, int]]:
        """The images of a shard, and the sizes of the files of many that they lie in.

        Raises:
            BadInput: the plan is damaged.
        """
        path = _inputs(self.folder, number)
        data = files.read_json(path)
        try:
            items = [
                ImagePlace(*entry) if len(entry) > 1 else ImagePlace(entry[0], entry[0]) for entry in data["items"]
            ]
            root = data["root"]
            sizes = {str(name): int(size) for name, size in data["sizes"].items()}
            items = [item._replace(file=os.path.join(root, item.file)) for item in items]
        except (TypeError, LookupError, AttributeError, ValueError):
            raise BadInput(f"{path}: expected the images of a shard, as maskx batch plan writes them") from None
        if len(items) != self.counts[number]:
            raise BadInput(f"{path}: expected {self.counts[number]} images, as in {PLAN_FILE}, found {len(items)}")
        return items, sizes

    def check_model(self) -> None:
        """Raises BadInput if the model is not the one that the job was planned for."""
        if digest_of(self.model) != self.model_digest:
            raise BadInput(f"{self.model}: expected the model that {self.folder} was planned for, found a changed one")


def digest_of(path: str | os.PathLike[str]) -> str:
    """Returns a checksum of everything that a model's answers depend on.

    Raises:
        BadInput: it is no model folder, run folder or exported version.
    """
    folder = Path(path)
    if (folder / model_folder.GRAPH).is_file():
        names = [name for name in folder.rglob("*") if name.is_file() and name.parent.name != "assets.extra"]
    else:
        folder = model_folder.find(path)
        names = [folder / name for name in model_folder.FILES if (folder / name).is_file()]
    try:
        return files.digest({name.relative_to(folder).as_posix(): files.sha256(name) for name in names})
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read: {reason(error)}") from None


def write(
    out: Path,
    model: str | os.PathLike[str],
    places: Iterable[ImagePlace],
    *,
    size: int = IMAGES_OF_A_SHARD,
    settings: BatchSettings = USUAL_SETTINGS,
) -> BatchJob:
    """Plans a job in a new folder.

    Args:
        out: the folder of the job.
        model: a run, checkpoint or model folder, or one version of an exported SavedModel.
        places: the images.
        size: images of a shard.
        settings: see `BatchSettings`.

    Raises:
        BadInput: the model or the images cannot be read, there are no images, the folder holds something, or an export
            leaves out detections from the score on.
    """
    arrow.require()
    model_digest = digest_of(model)
    if Path(model, model_folder.GRAPH).is_file():
        model_folder.open_export(model, settings.score)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out}: expected a new folder for the job, found one that holds something")
    with files.new_folder(out) as unfinished:
        for name in (INPUTS_FOLDER, ROWS_FOLDER):
            (unfinished / name).mkdir()
        counts: list[int] = []
        digests: list[str] = []
        images = iter(places)
        while shard := list(itertools.islice(images, size)):
            facts = _as_json(shard)
            files.write_json(_inputs(unfinished, len(counts)), facts, indent=None)
            digests.append(files.digest(facts))
            counts.append(len(shard))
        if not counts:
            raise BadInput(f"{out}: expected images to plan for, found none")
        plan = _PlanFile(
            format=PLAN_FORMAT,
            id=files.digest([model_digest, settings.model_dump(), digests])[:ID_LETTERS],
            model=os.path.abspath(model),
            model_digest=model_digest,
            settings=settings,
            counts=counts,
        )
        files.write_json(unfinished / PLAN_FILE, plan.model_dump(mode="json"))
    return open_job(out)


def open_job(folder: str | os.PathLike[str]) -> BatchJob:
    """A job that was planned.

    Raises:
        BadInput: it is none, or its plan is damaged.
    """
    path = Path(folder, PLAN_FILE)
    plan = validated(files.read_json(path), _PlanFile, path, "a plan of maskx batch")
    if plan.format > PLAN_FORMAT:
        raise BadInput(f"{path}: written in format {plan.format}, expected at most {PLAN_FORMAT}: use a newer maskx_tf")
    return BatchJob(folder=Path(folder), **dict(plan))


def _inputs(folder: Path, number: int) -> Path:
    return folder / INPUTS_FOLDER / f"{number:05}.json"


def _as_json(items: list[ImagePlace]) -> Json:
    """The images of a shard; one with a file of its own that its key names needs no second name."""
    root = os.getcwd()
    entries = [
        [item.key] if item.has_own_file and os.path.join(root, item.key) == item.file else list(item) for item in items
    ]
    return {"root": root, "sizes": item_ops.sizes(items), "items": entries}
