"""Jobs in shards: sources of images, one row per image, and errors."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import shutil
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pycocotools.coco import COCO

from maskx_tf import cli, locks
from maskx_tf.config import Config
from maskx_tf.config import write as write_config
from maskx_tf.errors import BadInput
from maskx_tf.masks import rle
from maskx_tf.prediction.rows import ImageRow
from maskx_tf.tasks.batch import arrow, items, merge, plan, run
from maskx_tf.tasks.batch.plan import BatchSettings
from tests import disk
from tests.export.exported import CATEGORY_IDS, encoded, model_folder, picture

PICTURES = {f"{index:03}.png": encoded(picture(20, 30, seed=index)) for index in range(7)}


class Fake:
    """Rows that depend on the bytes of the image alone, and no model."""

    def __init__(self, model: str, **options: object) -> None:
        self.model = model

    def __call__(self, images: Iterable[tuple[str, bytes | Path]]) -> Iterator[ImageRow]:
        for key, source in images:
            if isinstance(source, Path) and not source.exists():
                yield empty(key, "missing: No such file or directory")
                continue
            data = source if isinstance(source, bytes) else source.read_bytes()
            if not data.startswith(b"\x89PNG"):
                yield empty(key, "not_an_image: expected an image file")
                continue
            count = zlib.crc32(data) % 3
            boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
            masks = [rle.encode(np.arange(600).reshape(20, 30) % 7 == index) for index in range(count)]
            classes, scores = np.full(count, 17), np.linspace(0.9, 0.1, count, dtype=np.float32)
            points = np.arange(6 * count, dtype=np.float32).reshape(count, 2, 3)
            yield ImageRow(key, "ok", 20, 30, boxes, scores, classes, ("cat",) * count, masks, points)


def empty(key: str, status: str) -> ImageRow:
    return ImageRow(key, status, 0, 0, np.zeros([0, 4], np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Segmenter", Fake)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Files that look like a model as long as nobody opens them."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.yaml", "model.json", "weights.npz"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, data in PICTURES.items():
        (folder / name).write_bytes(data)
    (folder / "003.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def job(tmp_path: Path, model: Path, photos: Path, fake: None) -> Path:
    plan.write(tmp_path / "job", model, images_of(photos), size=3)
    return tmp_path / "job"


def images_of(path: Path) -> Iterator[items.ImagePlace]:
    return items.find([str(path)], "image")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which a command refuses."""
    assert cli.run([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("maskx: error: ")
    return lines[-1].removeprefix("maskx: error: ")


# Where images come from


def tar_of(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in {**PICTURES, "000.json": b"{}"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def records_of(path: Path) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in PICTURES.values():
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
            writer.write(
                tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature})).SerializeToString()
            )


def parquet_of(path: Path) -> None:
    pq.write_table(pa.table({"image": list(PICTURES.values())}), path, row_group_size=2)


def structs_of(path: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": data, "path": None} for data in PICTURES.values()]}), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.tar", tar_of),
        ("a.tfrecord-00000-of-00001", records_of),
        ("a.parquet", parquet_of),
        ("structs.parquet", structs_of),
    ],
)
@pytest.mark.parametrize("part", [slice(None), slice(1, 4), slice(5, 6)])
def test_images_in_a_file_of_many(tmp_path: Path, name: str, write: Any, part: slice) -> None:
    write(tmp_path / name)
    found = list(items.find([str(tmp_path / name)], "image"))
    assert len({item.key for item in found}) == len(found) == len(PICTURES)
    read = list(items.contents(found[part], items.sizes(found), "image"))
    assert read == list(zip([item.key for item in found[part]], list(PICTURES.values())[part], strict=True))


def test_folders_patterns_and_lists_name_the_same_images(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("".join(f"photos/{name}\n" for name in PICTURES) + "\n")
    found = [list(items.find([name], "image")) for name in ("photos", "photos/*.png", "list.txt")]
    assert found[0] == found[1] == found[2]
    assert found[0][2] == ("photos/002.png", str(photos / "002.png"), -1, 0)


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a.tar", b"not a tar at all" * 100, r"a\.tar: expected a tar, not compressed"),
        ("a.tfrecord", struct.pack("<QI", 10**15, 0), r"a\.tfrecord: expected TFRecords: record 0 reaches beyond"),
        ("a.tfrecord", b"short", r"a\.tfrecord: expected TFRecords: record 0 reaches beyond"),
        ("a.parquet", b"PAR1", r"a\.parquet: expected a Parquet file"),
        ("a.csv", b"", r"a\.csv: expected one of \.bmp"),
        ("a.txt", b"x.png\ny.png\nx.png\n", r"x\.png: expected each image once, found it twice"),
        ("a.txt", b"\xff", r"a\.txt: expected UTF-8"),
    ],
)
def test_what_is_no_list_of_images(tmp_path: Path, model: Path, name: str, data: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(data)
    before = disk.names_in(tmp_path)
    with pytest.raises(BadInput, match=problem):
        plan.write(tmp_path / "job", model, images_of(tmp_path / name))
    assert disk.names_in(tmp_path) == before


def test_names_that_are_no_text_and_links_to_nothing_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.tar").symlink_to(tmp_path / "none.tar")
    with pytest.raises(BadInput, match=r"x\.tar: "):
        list(items.find([str(tmp_path / "*.tar")], "image"))
    (tmp_path / "photos").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/a\xff.png")).write_bytes(b"")
    with pytest.raises(BadInput, match="expected names in UTF-8"):
        list(items.find([str(tmp_path / "photos")], "image"))


def test_a_tar_with_a_damaged_header_does_not_end_there(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    tar_of(path)
    whole = list(items.find([str(path)], "image"))
    with tarfile.open(path) as tar:
        fourth, last = tar.getmembers()[3], tar.getmembers()[-1]
    data = path.read_bytes()
    path.write_bytes(data[: last.offset_data + tarfile.BLOCKSIZE])  # without the zeros at the end
    assert list(items.find([str(path)], "image")) == whole
    path.write_bytes(data[: fourth.offset] + b"\xff" + data[fourth.offset + 1 :])
    with pytest.raises(BadInput, match=rf"a\.tar: expected a tar, .*: its header at byte {fourth.offset} is damaged"):
        list(items.find([str(path)], "image"))


def test_a_tar_cut_short_and_a_column_that_is_not_there(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar")
    (tmp_path / "b.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1000])
    with pytest.raises(BadInput, match=r"b\.tar: expected a tar"):
        list(items.find([str(tmp_path / "b.tar")], "image"))
    parquet_of(tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=r"a\.parquet: expected a column picture, found image"):
        list(items.find([str(tmp_path / "a.parquet")], "picture"))


@pytest.mark.parametrize(("first", "count"), [(0, 10), (0, 3), (2, 2), (3, 4), (9, 1)])
def test_rows_of_parquet_over_row_groups(tmp_path: Path, first: int, count: int) -> None:
    """Any rows, wherever row groups and the pieces in which they are read end."""
    every = [b"%d" % number for number in range(10)]
    pq.write_table(pa.table({"image": every}), tmp_path / "a.parquet", row_group_size=3)
    with (tmp_path / "a.parquet").open("rb") as file:
        assert list(arrow.column_values(file, "image", first, count)) == every[first : first + count]


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    """Its footer, which the plan reads, is whole."""
    path = tmp_path / "a.parquet"
    parquet_of(path)
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(BadInput, match=r"a\.parquet: cannot be read: .+"):
        list(arrow.column_values(file, "image", 0, 2))


def test_a_file_of_many_that_changed_is_noticed(tmp_path: Path, model: Path, fake: None) -> None:
    tar_of(tmp_path / "a.tar")
    plan.write(tmp_path / "job", model, images_of(tmp_path / "a.tar"))
    with open(tmp_path / "a.tar", "ab") as file:
        file.write(b"more")
    with pytest.raises(BadInput, match=r"a\.tar: expected \d+ bytes, as when the job was planned, found \d+$"):
        run.run(tmp_path / "job")
    assert list((tmp_path / "job" / "rows").iterdir()) == []


# Rows


def test_every_image_is_one_row_in_the_order_of_the_plan(job: Path, photos: Path, tmp_path: Path) -> None:
    assert merge.status(job) == (3, [0, 1, 2], 7, {})
    assert run.run(job, (1, 2)) == (1, 0, 3)
    assert merge.status(job) == (3, [0, 2], 7, {"not_an_image": 1, "ok": 2})
    assert run.run(job) == (2, 1, 4)
    assert run.run(job) == (0, 3, 0)
    found = merge.merge(job, tmp_path / "all.parquet")
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert [row["key"] for row in rows] == [str(photos / name) for name in PICTURES]
    expected = list(Fake("")((str(photos / name), photos / name) for name in PICTURES))
    for row, other in zip(rows, expected, strict=True):
        assert (row["status"], row["height"], row["names"]) == (other.status, other.height, list(other.names))
        np.testing.assert_array_equal(np.reshape(row["boxes"], [-1, 4]), other.boxes)
        assert np.float32(row["scores"]).tolist() == other.scores.tolist()
        assert row["masks"] == (None if other.masks is None else [mask["counts"] for mask in other.masks])
    assert found == (7, sum(len(row.boxes) for row in expected), 1)
    merge.merge(job, tmp_path / "all.json")
    results = json.loads((tmp_path / "all.json").read_text())
    assert len(results) == found.detections
    # As maskx predict: the numbers in the files' names are the ids.
    assert {entry["image_id"] for entry in results} == {int(Path(row.key).stem) for row in expected if len(row.boxes)}
    assert {entry["file_name"] for entry in results} == {row.key for row in expected if len(row.boxes)}
    # COCO counts pixels, of which the first has its centre at .5 here.
    assert {tuple(entry["keypoints"]) for entry in results} == {
        (-0.5, 0.5, 2, 2.5, 3.5, 5),
        (5.5, 6.5, 8, 8.5, 9.5, 11),
    }
    for entry in results:
        assert rle.area(entry["segmentation"]) == sum(np.arange(600) % 7 == 0) or entry["score"] < 0.9


def test_a_score_below_the_threshold_of_an_export_is_refused(tmp_path: Path, photos: Path) -> None:
    """Its graph drops detections below its own threshold, whatever a job asks for."""
    export = tmp_path / "pets" / "1"
    (export / "assets").mkdir(parents=True)
    (export / "saved_model.pb").write_bytes(b"")
    write_config(Config(), export / "assets" / "config.yaml")
    with pytest.raises(BadInput, match=r"^score: expected at least 0\.05, below which \S+ drops .*, found 0\.01"):
        plan.write(tmp_path / "low", export, items.find([str(photos)], "image"), settings=BatchSettings(score=0.01))
    assert not (tmp_path / "low").exists()
    plan.write(tmp_path / "equal", export, items.find([str(photos)], "image"), settings=BatchSettings(score=0.05))


def test_a_plan_says_what_its_rows_depend_on(tmp_path: Path, model: Path, photos: Path) -> None:
    ids = [
        plan.write(tmp_path / "a", model, images_of(photos)).id,
        plan.write(tmp_path / "b", model, images_of(photos)).id,
    ]
    assert ids[0] == ids[1]
    ids = ids[:1]
    ids.append(plan.write(tmp_path / "c", model, images_of(photos), size=3).id)
    ids.append(plan.write(tmp_path / "d", model, images_of(photos), settings=BatchSettings(score=0.5)).id)
    (model / "weights.npz").write_text("other")
    ids.append(plan.write(tmp_path / "e", model, images_of(photos)).id)
    (photos / "new.png").write_bytes(PICTURES["000.png"])
    ids.append(plan.write(tmp_path / "f", model, images_of(photos)).id)
    assert len(set(ids)) == 5


# What may go wrong


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("plan.json", "{", "plan.json: expected JSON: line 1"),
        ("plan.json", "[]", "plan.json: expected a plan of maskx batch"),
        ("plan.json", '{"format": 1, "id": "0"}', "plan.json: expected a plan of maskx batch: id"),
        ("inputs/00000.json", "{}", "00000.json: expected the images of a shard"),
        ("inputs/00000.json", '{"root": "/", "sizes": {}, "items": [["a"]]}', "expected 3 images, as in plan.json"),
        ("inputs/00000.json", '{"root": "/", "sizes": {}, "items": [[]]}', "expected the images of a shard"),
    ],
)
def test_an_unreadable_plan_is_one_line(
    job: Path, file: str, text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (job / file).write_text(text)
    assert problem in refused(capsys, "batch", "run", job)
    assert len(list((job / "rows").iterdir())) == (2 if file.startswith("inputs") else 0)


def test_no_plan_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["run"], ["status"], ["merge", "--out", "all.json"]):
        line = refused(capsys, "batch", *command, tmp_path / "none")
        assert line.endswith("plan.json: cannot be read: No such file or directory")


def test_a_model_changed_after_the_plan_is_one_line(job: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.run(job, (0, 3))
    (model / "weights.npz").write_text("trained further")
    line = refused(capsys, "batch", "run", job)
    assert line == f"{model}: expected the model that {job} was planned for, found a changed one"
    assert merge.status(job).missing == [1, 2]


def test_a_model_replaced_while_a_shard_runs_gives_no_rows(
    job: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replaced(Fake):
        def __call__(self, images: Iterable[tuple[str, bytes | Path]]) -> Iterator[ImageRow]:
            for row in super().__call__(images):
                (model / "weights.npz").write_text("trained further")
                yield row

    monkeypatch.setattr(run, "Segmenter", Replaced)
    with pytest.raises(BadInput) as caught:
        run.run(job)
    assert str(caught.value) == f"{model}: expected the model that {job} was planned for, found a changed one"
    assert list((job / "rows").iterdir()) == []


def test_a_model_that_cannot_be_opened_ends_the_run_at_once(tmp_path: Path, model: Path, photos: Path) -> None:
    job = plan.write(tmp_path / "job", model, images_of(photos), size=3)
    with pytest.raises(BadInput, match=f"^{model}"):
        run.run(job.folder)


def test_a_full_disk_is_one_line_and_loses_nothing(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.run(job, (0, 3))
    with disk.no_room_beyond(1500):
        line = refused(capsys, "batch", "run", job)
    assert line.endswith("parquet: cannot be written: File too large")
    assert merge.status(job).missing == [1, 2]
    assert len(list((job / "rows").iterdir())) == 1
    assert run.run(job) == (2, 1, 4)


@disk.each_error
def test_a_shard_is_whole_or_not_there(job: Path, tmp_path: Path, error: BaseException) -> None:
    run.run(job)
    whole = {path.name: path.read_bytes() for path in (job / "rows").iterdir()}

    def again() -> None:
        run.run(job, (1, 3))

    name = sorted(whole)[1]
    (job / "rows" / name).unlink()
    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    steps = 0
    for _ in disk.each_step(again, error, expected):
        steps += 1
        rows = {path.name: path.read_bytes() for path in (job / "rows").iterdir()}
        assert rows in (whole, {key: value for key, value in whole.items() if key != name})
        (job / "rows" / name).unlink(missing_ok=True)
    assert steps >= 4
    assert {path.name: path.read_bytes() for path in (job / "rows").iterdir()} == whole


def test_two_runs_on_one_shard(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan.open_job(job)
    with locks.locked(planned.lock(1)):
        line = refused(capsys, "batch", "run", job)
        assert line.startswith(f"{job}: 2 shards done, 1 not: 1; the first: {job}: shard 1: expected one that nobody")
        assert f"found process {os.getpid()} on" in refused_say(capsys, job)
    assert merge.status(job).missing == [1]
    assert run.run(job) == (1, 2, 3)


def test_two_runs_of_a_shard_on_a_disk_without_locks(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one starts while the first one writes, and leaves its file alone."""

    def none(file: Any, flags: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    class Second(Fake):
        def __call__(self, images: Iterable[tuple[str, bytes | Path]]) -> Iterator[ImageRow]:
            for row in super().__call__(images):
                monkeypatch.setattr(run, "Segmenter", Fake)
                run.run(job, (1, 3))
                yield row

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(run, "Segmenter", Second)
    assert run.run(job, (1, 3)) == (1, 0, 3)
    assert merge.status(job).missing == [0, 2]
    assert len(list((job / "rows").iterdir())) == 1


def test_the_rows_are_a_data_set_while_a_shard_runs(job: Path) -> None:
    run.run(job, (0, 3))
    with locks.locked(plan.open_job(job).lock(1)):
        assert pq.read_table(job / "rows").num_rows == 3


def refused_say(capsys: pytest.CaptureFixture[str], job: Path) -> str:
    """What a run says of the shards that it leaves to others."""
    assert cli.run(["batch", "run", str(job)]) == 2
    return capsys.readouterr().err.splitlines()[0]


def test_what_a_killed_process_left_is_removed(job: Path) -> None:
    planned = plan.open_job(job)
    left = planned.output(0).with_name(f".{planned.output(0).name}.123.abcdef")
    left.write_bytes(b"half")
    run.run(job)
    assert sorted(path.name for path in (job / "rows").iterdir()) == [planned.output(i).name for i in range(3)]


def test_images_that_are_all_gone_are_no_rows(job: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "000.png").unlink()
    run.run(job, (0, 3))
    assert merge.status(job).rows == {"missing": 1, "ok": 2}
    shutil.rmtree(photos)
    line = refused(capsys, "batch", "run", job)
    problem = f"shard 1: expected images, such as in {photos}, found none of 3"
    assert line == f"{job}: 0 shards done, 2 not: 1, 2; the first: {job}: {problem}"
    assert merge.status(job).missing == [1, 2]
    photos.mkdir()
    assert problem in refused(capsys, "batch", "run", job)
    (photos / "another.png").write_bytes(b"")  # so the disk is there, and the images were removed
    assert run.run(job) == (2, 1, 4)
    assert merge.status(job).rows == {"missing": 5, "ok": 2}


def test_merge_needs_every_shard_of_this_plan(
    job: Path, tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all.parquet"
    run.run(job, (0, 2))
    assert refused(capsys, "batch", "merge", job, "--out", out).endswith("all 3 shards, 1 are not done: 1")
    run.run(job)
    assert "expected a file .parquet" in refused(capsys, "batch", "merge", job, "--out", tmp_path / "all.csv")
    planned = plan.open_job(job)
    shutil.copy(planned.output(0), planned.output(1))
    assert "expected the 3 images of shard 1" in refused(capsys, "batch", "merge", job, "--out", out)
    planned.output(1).write_bytes(planned.output(0).read_bytes()[:-100])
    assert "expected a Parquet file" in refused(capsys, "batch", "merge", job, "--out", out)
    other = plan.write(tmp_path / "other", model, images_of(photos), size=2)
    run.run(tmp_path / "other")
    shutil.copy(other.output(1), planned.output(1))
    assert f"expected rows of the plan {planned.id}" in refused(capsys, "batch", "merge", job, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("part", ["3", "8/8", "-1/8", "a/b", "0/0"])
def test_an_invalid_part_is_refused(part: str, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected I/N with I from 0 to N - 1" in refused(capsys, "batch", "run", job, f"--shard={part}")


def test_a_plan_needs_a_model_images_and_a_new_folder(
    tmp_path: Path, model: Path, photos: Path, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "no such folder" in refused(capsys, "batch", "plan", tmp_path / "none", photos, "--out", out)
    assert "no such file" in refused(capsys, "batch", "plan", model, tmp_path / "none", "--out", out)
    (tmp_path / "nothing").mkdir()
    assert "expected images" in refused(capsys, "batch", "plan", model, tmp_path / "nothing", "--out", out)
    assert "expected a new folder" in refused(capsys, "batch", "plan", model, photos, "--out", job)
    (tmp_path / "file").write_text("")
    assert "expected a new folder" in refused(capsys, "batch", "plan", model, photos, "--out", tmp_path / "file")
    boxes = "--boxes", tmp_path / "boxes.json", "--score", 0.5
    assert "expected none of them with --boxes" in refused(capsys, "batch", "plan", model, photos, "--out", out, *boxes)
    assert not out.exists()


# With a model


def test_commands_from_photos_to_results(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["plan", str(model_folder()), "photos", "--out", "job", "--size", "4", "--score", "0.1"],
        ["run", "job", "--shard", "1/2"],
        ["run", "job"],
        ["merge", "job", "--out", "all.parquet"],
        ["merge", "job", "--out", "all.json"],
    ):
        assert cli.run(["batch", *command]) == 0, capsys.readouterr().err
    assert cli.run(["batch", "status", "job", "--json"]) == 0
    answer = capsys.readouterr().out
    assert json.loads(answer[answer.index("{") :])["rows"] == {"not_an_image": 1, "ok": 6}
    assert (
        cli.run(["predict", str(model_folder()), "photos/000.png", "--no-images", "--json", "one.json", "--score=.1"])
        == 0
    )
    one = json.loads(Path("one.json").read_text())
    every = [entry for entry in json.loads(Path("all.json").read_text()) if entry["image_id"] == 0]
    assert len(every) == len(one) > 0
    for entry, other in zip(every, one, strict=True):
        assert entry["category_id"] == other["category_id"] in CATEGORY_IDS
        np.testing.assert_allclose(entry["bbox"], other["bbox"], atol=1e-2)
        assert entry["segmentation"]["size"] == other["segmentation"]["size"]
        assert entry["file_name"] == other["file_name"] == "photos/000.png"
    truth = COCO()
    truth.dataset = {"images": [{"id": 0}], "categories": [{"id": number} for number in CATEGORY_IDS]}
    truth.createIndex()
    assert len(truth.loadRes(one).getAnnIds()) == len(one)
