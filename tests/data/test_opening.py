"""From the configuration's `data` to the records that training and evaluation read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from maskx_tf.config.data import DataConfig
from maskx_tf.config.data import Source as ConfigSource
from maskx_tf.data.dataset import Dataset
from maskx_tf.data.formats.readers import READERS, DataFiles
from maskx_tf.data.opening import training_set, validation_set
from maskx_tf.errors import BadInput
from maskx_tf.masks import rle
from tests.data import samples
from tests.data.samples import blob, coco_data, write_json


def entry(source: DataFiles) -> dict[str, Any]:
    found = {"images": str(source.images), "annotations": str(source.annotations), "format": source.format}
    return found | ({} if source.masks_b is None else {"masks_b": str(source.masks_b)})


def config(train: list[DataFiles], val: list[DataFiles] | None = None, **others: Any) -> DataConfig:
    sources = {"train": [entry(one) for one in train], "val": [entry(one) for one in val or []]}
    return DataConfig.model_validate(sources | others)


def known(dataset: Dataset) -> dict[int | str, bool]:
    return {one.id: one.has_mask for image in dataset.images for one in image.instances}


def shown(dataset: Dataset) -> list[str]:
    return [dataset.class_names[one.label - 1] for image in dataset.images for one in image.instances]


def test_every_format_that_can_be_read_can_be_configured() -> None:
    assert get_args(ConfigSource.model_fields["format"].annotation) == tuple(READERS)


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_every_format_is_opened(name: str, tmp_path: Path) -> None:
    source = samples.SAMPLES[name](tmp_path)
    data = config([source], [source])
    assert training_set(data).class_names == validation_set(data).class_names
    assert len(training_set(data).images) == len(validation_set(data).images) > 0


def apart(folder: Path) -> DataFiles:
    """A data set of which one mask is kept apart."""
    form = rle.encode(blob(3, 3, 20, 20) > 0)
    data = {**coco_data(), "annotations": [{"id": 104, "image_id": 1, "segmentation": form}]}
    return samples.coco(folder)._replace(masks_b=write_json(folder / "b.json", data))


def test_training_sees_the_masks_of_the_policy_and_validation_all(tmp_path: Path) -> None:
    source = apart(tmp_path)
    assert known(training_set(config([source])))[100]
    assert not known(training_set(config([source])))[104]
    assert known(training_set(config([source], masks="oracle")))[104]
    for masks, expected in ((["dog"], {100, 101}), (["traffic light"], {105})):
        found = known(training_set(config([source], masks=masks)))
        assert {number for number, has_mask in found.items() if has_mask} == expected
    drawn = config([source], [source], masks={"random": {"a": 1, "seed": 1}})
    assert sum(known(training_set(drawn)).values()) in (1, 2)
    assert known(validation_set(drawn))[104]


def test_names_are_changed_in_both_parts(tmp_path: Path) -> None:
    names = tmp_path / "names.yaml"
    names.write_text("dog: hound\ntraffic light: null\n")
    coco, folders = samples.coco(tmp_path / "a"), samples.masks(tmp_path / "b")
    data = config([coco, folders], [coco], names=str(names), masks=["hound"])
    assert training_set(data).class_names == validation_set(data).class_names == ("hound",)
    assert set(shown(training_set(data))) == {"hound"}
    only = json.loads(coco.annotations.read_text())
    only["categories"] = [one for one in only["categories"] if one["name"] == "dog"]
    ids = {one["id"] for one in only["categories"]}
    only["annotations"] = [one for one in only["annotations"] if one["category_id"] in ids]
    write_json(coco.annotations, only)
    assert validation_set(data).class_names == ("hound",)  # it lacks a class that is dropped
    names.write_text("dgo: hound\n")
    with pytest.raises(BadInput, match="found 'dgo'; did you mean 'dog'"):
        training_set(data)


def test_the_model_numbers_the_classes(tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    data = config([source], [source])
    order = ("cat", "traffic light", "dog")
    for opened in (training_set(data, order), validation_set(data, order)):
        assert opened.class_names == order
        assert shown(opened) == shown(training_set(data))
        assert len(set(opened.category_ids)) == 3
        assert opened.category_ids[1:] == training_set(data).category_ids[::-1]
    first = config([source], masks={"random": {"a": 1, "seed": 0}})
    assert known(training_set(first, ("cat", "traffic light", "dog"))) != known(
        training_set(first, ("dog", "traffic light", "cat"))
    ), "the draw is of places in the model's list"
    with pytest.raises(BadInput, match=r"model.class_names: expected every class of instances.json, found no 'traffic"):
        training_set(data, ("dog", "cat"))
    assert set(shown(validation_set(data, ("cat", "dog")))) == {"dog"}
    with pytest.raises(BadInput, match=r"expected some of the model's classes, such as cat, found dog, traffic light"):
        validation_set(data, ("cat",))


def test_nothing_to_open() -> None:
    with pytest.raises(BadInput, match=r"data.train: expected data sets to learn from, found none"):
        training_set(DataConfig())
    with pytest.raises(BadInput, match=r"data.val: expected data sets to evaluate on, found none"):
        validation_set(DataConfig())
