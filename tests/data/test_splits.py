"""Which classes keep their masks: the paper's splits, and that masks of B are dropped after reading."""

from __future__ import annotations

import gc
import json
import pickle
import weakref
from array import array
from pathlib import Path
from typing import Any

import pytest

from maskx_tf.config.schema import Config
from maskx_tf.data import splits
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, MaskFile
from maskx_tf.data.formats.readers import DataFiles, for_training
from maskx_tf.data.splits import Random, a_classes, apply, parse, parse_text
from maskx_tf.errors import BadInput
from maskx_tf.names import COCO, VOC, VOC_IN_COCO
from tests.data.samples import coco_data, write_json

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "spec" / "randsplits_indices.json"


@pytest.mark.skipif(not VECTORS.exists(), reason="the vectors are not next to the project (../shared/spec)")
def test_published_splits_are_those_of_the_paper() -> None:
    vectors = json.loads(VECTORS.read_text())
    assert {key[:6]: value for key, value in vectors.items()} == splits.published()
    for key, value in vectors.items():
        assert a_classes(parse(key[:6]), COCO) == {COCO[index] for index in value}


def test_published_splits_by_sums() -> None:
    drawn = splits.published()
    assert len(drawn) == 25
    assert drawn["E1_A20"] == [61, 57, 77, 6, 45, 8, 35, 73, 9, 59, 12, 27, 34, 63, 47, 54, 55, 13, 50, 66]
    assert (sum(drawn["E1_A30"]), sum(drawn["E5_A60"])) == (1251, 2397)
    assert a_classes(Random(20, 3), COCO) == {COCO[index] for index in drawn["E1_A20"]}


def test_complement_of_a_draw_and_no_class_at_all() -> None:
    drawn, rest = (a_classes(Random(20, 3, complement), COCO) for complement in (False, True))
    assert (len(drawn), len(rest), drawn | rest) == (20, 60, set(COCO))
    assert a_classes("none", COCO) == frozenset()


def test_a_draw_is_written_without_a_complement_that_it_has_not() -> None:
    """Checksums of studies are of what is written."""
    for draw in ({"a": 20, "seed": 0}, {"a": 20, "seed": 0, "complement": True}):
        config = Config.model_validate({"data": {"masks": {"random": draw}}})
        assert config.model_dump(mode="json")["data"]["masks"] == {"random": draw}


def test_voc_and_the_rest() -> None:
    voc, rest = a_classes("voc", COCO), a_classes("nonvoc", COCO)
    places = [place for place, name in enumerate(COCO, 1) if name in voc]
    assert places == [1, 2, 3, 4, 5, 6, 7, 9, 15, 16, 17, 18, 19, 20, 40, 57, 58, 59, 61, 63]
    assert (len(rest), voc | rest, voc & rest) == (60, set(COCO), set())
    assert a_classes("voc", VOC) == set(VOC)
    assert a_classes("voc", ["zebra", "dog"]) == {"dog"}
    assert len(VOC_IN_COCO) == 20


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        ("all", "all"),
        ("oracle", "oracle"),
        ("E5_A60", "E5_A60"),
        (["dog", "cat"], ("dog", "cat")),
        ({"random": {"a": 20, "seed": 3}}, Random(20, 3)),
        ({"random": {"a": 20}}, Random(20, 0)),
        ({"random": {"a": 20, "seed": 3, "complement": True}}, Random(20, 3, complement=True)),
        ("none", "none"),
    ],
)
def test_policies_as_data_and_as_text(value: Any, policy: Any) -> None:
    assert parse(value) == policy
    assert parse_text(json.dumps(value)) == policy
    train = [{"images": "a", "annotations": "b", "masks_b": "c"}]
    config = Config.model_validate({"data": {"masks": value, "train": train}})
    assert parse(config.model_dump(mode="json")["data"]["masks"]) == policy


@pytest.mark.parametrize(
    "value",
    ["", "E6_A20", "E1_A25", "vocs", [], [1], {}, {"random": 3}, {"random": {}}, {"random": {"a": -1}}, 5, None,
     {"random": {"a": True}}, {"random": {"a": 1, "b": 2}}, {"random": {"a": 1}, "x": 1}, {"random": {"a": 1.0}},
     {"random": {"a": 1, "complement": 1}}],
)  # fmt: skip
def test_values_that_are_no_policy(value: Any) -> None:
    with pytest.raises(BadInput, match="masks: expected all, none, oracle, voc"):
        parse(value)


@pytest.mark.parametrize("text", ["[a", "{random: {a: 1}", "*x"])
def test_text_that_is_no_yaml(text: str) -> None:
    with pytest.raises(BadInput, match="masks: expected all"):
        parse_text(text)


@pytest.mark.parametrize(
    ("policy", "names", "what"),
    [
        ("voc", ["zebra"], "expected classes of Pascal VOC for voc, found none among 1"),
        ("E1_A20", COCO[::-1], "E1_A20: expected COCO's 80 classes in COCO's order, found 80 classes"),
        (Random(3, 0), ["a", "b"], "random.a: expected 1 to 2, the number of classes, found 3"),
        (Random(0, 0), ["a", "b"], "random.a: expected 1 to 2"),
        (("dgo",), ["dog", "cat"], "expected names of classes, found 'dgo'; did you mean 'dog'?"),
    ],
)
def test_policies_that_do_not_fit(policy: Any, names: Any, what: str) -> None:
    with pytest.raises(BadInput) as caught:
        a_classes(policy, names)
    assert what in str(caught.value)


def test_nothing_refers_to_a_mask_of_b_once_the_policy_is_applied() -> None:
    masks = [MaskFile(Path(name)) for name in ("mask of A", "mask of B")]
    watched = [weakref.ref(mask) for mask in masks]
    instances = tuple(Instance((0, 0, 9, 9), label, segmentation=mask) for label, mask in enumerate(masks, 1))
    crowd = instances[1]._replace(crowd=True)
    dataset = Dataset("d", ("a", "b"), (1, 2), (ImageRecord(1, Path("x"), 9, 9, (*instances, crowd)),))
    dataset = apply(dataset, ("a",))
    del masks, instances, crowd
    gc.collect()
    assert watched[0]() is not None
    assert watched[1]() is None
    assert [one.has_mask for one in dataset.images[0].instances] == [True, False, False]


@pytest.mark.parametrize("policy", ["none", "voc", ("dog",), Random(1, 1), Random(1, 1, complement=True)])
def test_a_mask_of_b_in_the_file_leaves_no_trace(policy: Any, tmp_path: Path) -> None:
    data = coco_data()
    data["annotations"][3]["segmentation"] = [[3.14159, 3, 9, 4, 8, 9]]
    data["annotations"][0]["segmentation"] = [[2.71828, 3, 19, 4, 8, 19]]
    source = DataFiles(tmp_path, write_json(tmp_path / "a.json", data))
    every = pickle.dumps(for_training([source], "all"))
    some = pickle.dumps(for_training([source], policy))
    kept = a_classes(policy, ("dog", "traffic light"))
    for name, number in (("dog", 2.71828), ("traffic light", 3.14159)):
        trace = array("d", [number]).tobytes()
        assert trace in every
        assert (trace in some) == (name in kept)
