"""Records give the same batches as their source; stopped writing continues; damage is reported."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import typer
from PIL import Image
from typer.testing import CliRunner

from maskx_tf.checkpoints import folder
from maskx_tf.commands.data import records as data_records
from maskx_tf.config import load
from maskx_tf.config.data import DataConfig
from maskx_tf.config.detector import InputConfig
from maskx_tf.data import opening, splits
from maskx_tf.data.dataset import Dataset, ImageRecord
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples, tfrecords, tfrecords_write
from maskx_tf.errors import BadInput
from maskx_tf.masks.rgb import read_image
from tests import disk
from tests.data import samples, scenes
from tests.data.batches import INPUT, PLAIN, VARIED, assert_equal, take, turned


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scenes.dataset(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def written(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images in three shards."""
    folder = tmp_path_factory.mktemp("records") / "out"
    steps: list[int] = []
    figures = tfrecords_write.write(dataset, folder, per_shard=4, started=steps.append, advance=lambda: steps.append(1))
    assert steps == [10, *[1] * 10]
    instances = [one for image in dataset.images for one in image.instances]
    assert figures["images"] == 10
    assert figures["instances"] == len(instances)
    assert figures["with_masks"] == sum(one.has_mask for one in instances)
    assert (figures["shards"], figures["shards_kept"]) == (3, 0)
    return folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_batches_are_those_of_the_source(dataset: Dataset, written: Path) -> None:
    source, records = examples.from_dataset(dataset), tfrecords.open_records(written)
    assert (records.total, records.class_names) == (10, dataset.class_names)
    for make, config in ((pipeline.training, VARIED), (pipeline.evaluation, PLAIN)):
        found, expected = (take(make(made, config, INPUT, batch=4), 3) for made in (records, source))
        assert_equal(found, expected)


def test_shards_are_tfrecords_with_a_true_index(dataset: Dataset, written: Path) -> None:
    index = json.loads((written / "index.json").read_text())
    present = sorted(path.name for path in written.iterdir())
    assert present == ["index.json", *(shard["file"] for shard in index["shards"])]
    numbers: list[int] = []
    for shard in index["shards"]:
        path = written / shard["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
        # TensorFlow's own reader checks the checksums that TFRecord has.
        found = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
        assert len(found) == shard["images"]
        data = path.read_bytes()
        for record, offset, length in zip(found, shard["offsets"], shard["lengths"], strict=True):
            assert data[offset : offset + length] == record
            numbers.append(int(tfrecords.parse(tf.constant(record), examples.fields_with(()))[0]))
    assert numbers == list(range(100, 110))


@pytest.mark.slow  # each process imports TensorFlow
def test_files_do_not_depend_on_processes(dataset: Dataset, written: Path, tmp_path: Path) -> None:
    tfrecords_write.write(dataset, tmp_path / "two", per_shard=4, workers=2)
    assert digests(tmp_path / "two") == digests(written)


def test_masks_of_b_are_not_written(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    figures = tfrecords_write.write(splits.apply(dataset, ("some",)), out)
    assert figures["with_masks"] == sum(
        one.has_mask for image in dataset.images for one in image.instances if one.label == 2
    )
    for batch in take(pipeline.evaluation(tfrecords.open_records(out), PLAIN, INPUT, batch=5)):
        assert not batch["gt_masks"][batch["gt_classes"] == 1].any()


def test_interrupted_writing_goes_on(
    dataset: Dataset, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends in the middle of the second shard, and then once more right after a shard took its place."""
    out, calls = tmp_path / "out", iter(range(100))
    pixels, write_bytes = tfrecords_write.pixels, tfrecords_write.files.write_bytes

    def interrupted(data: Dataset, place: int) -> Any:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return pixels(data, place)

    monkeypatch.setattr(tfrecords_write, "pixels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tfrecords_write.write(dataset, out, per_shard=4)
    assert sorted(path.name for path in out.iterdir()) == [
        "records-00000-of-00003.json",
        "records-00000-of-00003.tfrecord",
    ]
    with pytest.raises(BadInput, match=r"expected index.json, which maskx data records writes last"):
        tfrecords.open_records(out)

    def killed(path: Path, data: bytes) -> None:
        if path.name == "records-00001-of-00003.json":
            raise KeyboardInterrupt
        write_bytes(path, data)

    monkeypatch.setattr("maskx_tf.files.write.write_bytes", killed)
    (out / ".records-00001-of-00003.tfrecord.77").write_bytes(b"half")
    with pytest.raises(KeyboardInterrupt):
        tfrecords_write.write(dataset, out, per_shard=4)
    monkeypatch.undo()
    kept = (out / "records-00000-of-00003.tfrecord").stat().st_mtime_ns
    figures = tfrecords_write.write(dataset, out, per_shard=4)
    assert figures["shards_kept"] == 1
    assert (out / "records-00000-of-00003.tfrecord").stat().st_mtime_ns == kept
    assert digests(out) == digests(written)
    assert tfrecords_write.write(dataset, out, per_shard=4)["shards_kept"] == 3


def test_damaged_shard_is_found_and_written_again(dataset: Dataset, written: Path, copy: Path) -> None:
    shard = copy / "records-00001-of-00003.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    records = tfrecords.open_records(copy)
    for make in (pipeline.training, pipeline.evaluation):
        with pytest.raises(BadInput, match=rf"^{shard}: byte \d+: expected the record that was written"):
            take(make(records, PLAIN, INPUT, batch=5), 10)
    assert tfrecords_write.write(dataset, copy, per_shard=4)["shards_kept"] == 2
    assert digests(copy) == digests(written)


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_missing_or_short_shard_is_found_at_once(copy: Path, damage: str) -> None:
    shard = copy / "records-00002-of-00003.tfrecord"
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(BadInput, match=rf"^{shard}: expected \d+ bytes, as index.json says, found"):
        tfrecords.open_records(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 0}, "version: expected 1: write the records again, found 0"),
        ({"mask_side": 28}, "mask_side: expected 112"),
        ({"shards": None}, "shards: expected a list, found None"),
        ({"shards": [3]}, r"shards\[0\]: expected a mapping, found 3"),
        ({"class_names": [""]}, "class_names: expected text"),
    ],
)
def test_invalid_index_is_refused(copy: Path, change: dict[str, Any], words: str) -> None:
    path = copy / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match=f"^{path}: {words}"):
        tfrecords.open_records(copy)


def test_shard_of_the_index_without_places_is_refused(copy: Path) -> None:
    path = copy / "index.json"
    index = json.loads(path.read_text())
    index["shards"][1]["offsets"].pop()
    path.write_text(json.dumps(index))
    with pytest.raises(BadInput, match=r"offsets: expected 4 whole numbers"):
        tfrecords.open_records(copy)


def test_folder_with_something_else_is_left_alone(dataset: Dataset, copy: Path, tmp_path: Path) -> None:
    before = digests(copy)
    for other, per_shard in ((dataset, 5), (dataset._replace(class_names=("a", "b", "c")), 4)):
        with pytest.raises(BadInput, match="expected a new folder, or one with a part of these records, found"):
            tfrecords_write.write(other, copy, per_shard=per_shard)
    assert digests(copy) == before
    private = tmp_path / "private"
    private.mkdir()
    (private / "holiday.txt").write_text("x")
    with pytest.raises(BadInput, match=r"found holiday.txt in it"):
        tfrecords_write.write(dataset, private)
    with pytest.raises(BadInput, match="cannot be written"):
        tfrecords_write.write(dataset, private / "holiday.txt")
    with pytest.raises(BadInput, match="expected images to write, found none"):
        tfrecords_write.write(dataset._replace(images=()), tmp_path / "none")


def test_broken_image_is_named_and_leaves_nothing_half_written(dataset: Dataset, tmp_path: Path) -> None:
    broken = tmp_path / "torn.png"
    broken.write_bytes(Path(str(dataset.images[1].file)).read_bytes()[:100])
    records = (*dataset.images[:9], dataset.images[9]._replace(file=broken))
    with pytest.raises(BadInput, match=f"^{broken}: image 109 of scenes: expected"):
        tfrecords_write.write(dataset._replace(images=records), tmp_path / "out", per_shard=5)
    assert not (tmp_path / "out" / "index.json").exists()
    assert not list((tmp_path / "out").glob(".*"))


def test_images_of_any_kind_come_back_as_prediction_sees_them(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    colour = random.randint(0, 256, [30, 44, 3]).astype(np.uint8)
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(colour).save(folder / "plain.jpg")
    Image.fromarray(colour[..., 0]).save(folder / "grey.jpg")
    deep = random.randint(0, 65536, [30, 44]).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(colour).save(folder / "plain.bmp")
    turned(folder / "turned.jpg", 6, colour)
    records = []
    for path in sorted(folder.iterdir()):
        height, width, _ = read_image(path).shape
        records.append(ImageRecord(path.name, path, width, height))
    # Some data sets have their images inside.
    records.append(records[-1]._replace(id="inside", file=(folder / "turned.jpg").read_bytes()))
    tfrecords_write.write(Dataset("kinds", ("one",), (1,), tuple(records)), tmp_path / "out")
    large = InputConfig(canvas=(64, 64), short_side=30, long_side=44)
    found = take(pipeline.evaluation(tfrecords.open_records(tmp_path / "out"), DataConfig(), large, batch=1))
    for batch, record in zip(found, records, strict=True):
        path = folder / "turned.jpg" if isinstance(record.file, bytes) else record.file
        expected = read_image(path)
        np.testing.assert_array_equal(batch["images"][0, : record.height, : record.width], expected, err_msg=record.id)
    # Images that TensorFlow reads as we do are kept as they were.
    written = (tmp_path / "out" / "records-00000-of-00001.tfrecord").read_bytes()
    for name in ("plain.jpg", "deep.png"):
        assert (folder / name).read_bytes() in written


def test_command_writes_and_goes_on(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(data_records.records)
    source = samples.coco(tmp_path / "data")
    out = tmp_path / "records"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {{train: [{{images: {source.images}, annotations: {source.annotations}}}]}}")
    arguments = [str(recipe), "data.masks=[dog]", "--out", str(out), "--workers", "1"]
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    figures = json.loads(done.stdout)
    assert (figures["images"], figures["instances"], figures["with_masks"], figures["shards"]) == (2, 6, 2, 1)
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    text = "2 images, 6 instances, 2 with masks, in 1 files of 0 MiB in all; 1 of them were there"
    assert done.stdout == f"wrote {out}: {text}\n"
    with pytest.raises(BadInput, match="--workers 1000: expected 0 to 256"):
        CliRunner().invoke(app, [*arguments, "--workers", "1000"], catch_exceptions=False)
    config = load(str(recipe), ["data.masks=[dog]", f"data.records={out}", "data.flip=false"]).data
    dataset = opening.training_set(config)
    plain = opening.training_examples(config.model_copy(update={"records": None}), dataset)
    found, expected = (
        take(pipeline.training(made, config, INPUT, batch=2), 2)
        for made in (opening.training_examples(config, dataset), plain)
    )
    assert_equal(found, expected)
    for other in (config.model_copy(update={"masks": "all"}), config.model_copy(update={"masks": ("traffic light",)})):
        with pytest.raises(BadInput, match=r"records: expected records of instances.json as it is now"):
            opening.training_examples(other, opening.training_set(other))
    with pytest.raises(BadInput, match="found others; write them again"):
        opening.training_examples(config, opening.training_set(config, ("traffic light", "dog")))


@pytest.mark.parametrize("use", [False, True])
def test_command_writes_the_keypoints_that_the_model_learns(tmp_path: Path, use: bool) -> None:
    """None unless it learns some; and pairs to exchange in a mirror, which the recipe may name, are no part of them."""
    app = typer.Typer()
    app.command()(data_records.records)
    source = samples.coco_keypoints(tmp_path / "data")
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "records"
    recipe.write_text(f"data: {{train: [{{images: {source.images}, annotations: {source.annotations}}}]}}")
    pairs = "{names: [head, left_hand, right_hand, foot], flip: [[head, foot]], use: true}"
    settings = [f"model.keypoint={pairs if use else '{use: false}'}"]
    CliRunner().invoke(
        app, [str(recipe), *settings, "--out", str(out), "--workers", "1", "--per-shard", "1"], catch_exceptions=False
    )
    config = load(str(recipe), [*settings, f"data.records={out}"])
    read = opening.training_set(config.data)
    config, dataset = opening.with_keypoints(config, read)
    assert opening.training_examples(config.data, dataset).total == len(dataset.images)
    if not use:
        with pytest.raises(BadInput, match="found others"):
            opening.training_examples(config.data, read)


def test_command_takes_the_classes_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()
    app.command()(data_records.records)
    source = samples.coco(tmp_path / "data")
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "records"
    recipe.write_text(
        f"data: {{train: [{{images: {source.images}, annotations: {source.annotations}}}]}}\n"
        "train: {stage: heads, weights: somewhere}"
    )
    config = load(str(recipe), [f"data.records={out}"])
    monkeypatch.setattr(folder, "open_config", lambda path: (config.with_classes(("traffic light", "dog", "cat")), {}))
    CliRunner().invoke(app, [str(recipe), "--out", str(out), "--workers", "1"], catch_exceptions=False)
    assert tfrecords.open_records(out).class_names == ("traffic light", "dog", "cat")


@disk.each_error
def test_records_that_fail_are_finished_by_the_next_call(
    dataset: Dataset, written: Path, tmp_path: Path, error: BaseException
) -> None:
    out = tmp_path / "out"
    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    steps = 0
    for _ in disk.each_step(lambda: tfrecords_write.write(dataset, out, per_shard=4), error, expected):
        steps += 1
        assert not [name for name in disk.names_in(tmp_path) if "/." in name]
        for path in out.glob("*.tfrecord"):
            assert path.read_bytes() == (written / path.name).read_bytes()
    assert steps > 3  # each call finishes at least the part of a shard that the one before did not reach
    assert digests(out) == digests(written)


def test_a_disk_that_is_full_for_records_is_one_line(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.tfrecord: cannot be written: File too large$"), disk.no_room_beyond(3000):
        tfrecords_write.write(dataset, tmp_path / "out", per_shard=4)
    assert disk.names_in(tmp_path / "out") == []
