"""Visual Genome: the vocabulary and its alignment with COCO, the order of classes, and the images of each part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from maskx_tf.data import splits
from maskx_tf.data.formats.readers import DataFiles, for_training, read
from maskx_tf.data.formats.visual_genome import OVERRIDES, vocabulary
from maskx_tf.data.problems import Problem
from maskx_tf.errors import BadInput
from maskx_tf.names import COCO
from tests.data import samples
from tests.data.samples import write_json


def test_all_overrides_from_file_to_record(tmp_path: Path) -> None:
    dataset = read(samples.visual_genome(tmp_path))
    assert len(OVERRIDES) == 18
    assert dataset.class_names == (*COCO, "sky.n.01", "tree.n.01", "zebra_crossing.n.01")
    first = dataset.images[0]
    assert len(first.instances) == 84  # neither the one with two synsets nor the one without
    assert [one.label for one in first.instances[:80]] == list(range(1, 81))
    assert Counter(one.label for one in first.instances)[81] == 2
    assert first.instances[31].box == (1, 11, 11, 20)
    assert not any(one.has_mask for one in first.instances)


def test_an_override_beats_the_name_and_frequency() -> None:
    counts = {"orange.n.02": 99, "orange.n.01": 1, "tv.n.01": 99, "television.n.01": 1, "couch.n.01": 5}
    names, labels = vocabulary(counts)
    assert {labels[synset]: names[labels[synset] - 1] for synset in ("orange.n.01", "television.n.01")} == {
        COCO.index("orange") + 1: "orange",
        COCO.index("tv") + 1: "tv",
    }
    assert names[80:] == ("couch.n.01", "orange.n.02", "tv.n.01")


def test_the_most_frequent_synset_of_a_name_wins() -> None:
    counts = {"dog.n.01": 2, "dog.n.03": 7, "traffic_light.n.01": 1}
    names, labels = vocabulary(counts)
    assert labels["dog.n.03"] == COCO.index("dog") + 1
    assert labels["traffic_light.n.01"] == COCO.index("traffic light") + 1
    assert names[80:] == ("dog.n.01",)


def test_coco_classes_count_though_they_are_rare() -> None:
    # Of the 80 synsets, one is not among the most frequent: then there is one class more.
    aligned = {OVERRIDES.get(name, f"{name.replace(' ', '_')}.n.01"): 1000 for name in COCO}
    rare = aligned | {"hand_blower.n.01": 1}
    others = {f"thing{number:04d}.n.01": 10 for number in range(4000)}
    for counts, expected in ((aligned | others, 3000), (rare | others, 3001)):
        names, labels = vocabulary(counts)
        assert len(names) == expected
        assert labels["hand_blower.n.01"] == COCO.index("hair drier") + 1
        assert names[80:] == tuple(sorted(names[80:]))
        assert names[80] == "thing0000.n.01"


def test_images_of_minival_are_for_validation_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskx_tf.data.formats.visual_genome.TESTED", 2)
    source = samples.visual_genome(tmp_path)
    parts = {
        form: [image.id for image in read(source._replace(format=form)).images]
        for form in ("visual_genome", "visual_genome_val", "visual_genome_test")
    }
    assert parts == {"visual_genome": [3, 4], "visual_genome_val": [1, 2], "visual_genome_test": [5, 6]}
    assert read(source).images[0].file == tmp_path / "images" / "VG_100K_2" / "1.jpg"


def test_without_minival_nothing_is_read(tmp_path: Path) -> None:
    source = samples.visual_genome(tmp_path)
    (source.annotations / "instances_minival2014.json").rename(source.annotations / "instances_val2017.json")
    assert len(read(source).images) == 2
    (source.annotations / "instances_val2017.json").unlink()
    with pytest.raises(BadInput, match=r"expected instances_minival2014.json or instances_val2017.json"):
        read(source)


def test_joined_with_coco_by_name(tmp_path: Path) -> None:
    boxes, masks = samples.visual_genome(tmp_path / "vg"), samples.coco(tmp_path / "coco")
    dataset = for_training([masks, boxes], "all")
    assert dataset.class_names[:2] == ("dog", "traffic light")
    assert len(dataset.class_names) == 83
    dogs = [one.has_mask for image in dataset.images for one in image.instances if one.label == 1]
    assert dogs == [True, False, True, False, False]
    with pytest.raises(BadInput, match="E1_A20: expected COCO's 80 classes in COCO's order"):
        for_training([masks, boxes], splits.parse("E1_A20"))


@pytest.mark.parametrize(
    ("file", "data", "what"),
    [
        ("objects.json", {}, "objects.json: expected a list, found {}"),
        ("objects.json", [{"image_id": 1}], "objects.json: [0]: objects: expected a list, found None"),
        ("objects.json", [{"image_id": 1, "objects": [{"synsets": [[]]}]}], "[0].objects[0]: synsets: expected text"),
        ("objects.json", [{"image_id": 1, "objects": [{"synsets": ["dog.n.01"]}]}], "[0].objects[0]: x: expected"),
        ("image_data.json", [{"image_id": 1, "url": "x"}], "image_data.json: [0]: url: expected an address"),
        ("image_data.json", [None], "image_data.json: [0]: record: expected a mapping, found None"),
        ("instances_minival2014.json", [], "expected a COCO file"),
    ],
)
def test_mistakes_are_named(file: str, data: object, what: str, tmp_path: Path) -> None:
    source = samples.visual_genome(tmp_path)
    write_json(source.annotations / file, data)
    with pytest.raises(BadInput) as caught:
        read(source)
    assert what in str(caught.value)


def test_a_mistake_is_reported_once(tmp_path: Path) -> None:
    source: DataFiles = samples.visual_genome(tmp_path)
    objects = [{"image_id": 1, "objects": [{"synsets": None}, {"synsets": ["dog.n.01"], "x": "a"}, 5]}]
    write_json(source.annotations / "objects.json", objects)
    problems: list[Problem] = []
    read(source, problems.append)
    assert [problem.where[-10:] for problem in problems] == ["objects[0]", "objects[2]", "objects[1]"]
