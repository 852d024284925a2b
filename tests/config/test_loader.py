"""Files, bases and overrides: the result, and the place that an error message names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskx_tf.config import Config, dump, load, write
from maskx_tf.config.data import RandomSplit
from maskx_tf.errors import BadInput
from tests.config.helpers import problem, put


def test_empty_file_means_defaults() -> None:
    for text in ("", "# nothing\n", "---\n", "train:\nmodel:\n  rpn:\n"):
        assert load(put("a.yaml", text)) == Config()


def test_resolved_text_reads_back_to_the_same(tmp_path: Path) -> None:
    overrides = [r"""model.class_names=[cat, 'no', '1e-4', '5', 'null', ' a: b', '#x', 'ä', '0o17', "two\nlines"]"""]
    overrides += ["data.masks={random: {a: 2, seed: 3}}", "train.clip_norm=35", "train.rate=1e-7", "train.ema=.999"]
    overrides += ["data.train=[{images: a, annotations: b}]", "model.input.canvas=[512, 640]"]
    config = load(put("a.yaml", ""), overrides)
    assert config.model.class_names == ("cat", "no", "1e-4", "5", "null", " a: b", "#x", "ä", "0o17", "two\nlines")
    assert isinstance(config.data.masks, RandomSplit)
    write(config, "b.yaml")
    assert load("b.yaml") == config
    assert load(put("c.yaml", dump(config))) == config
    assert sorted(os.listdir(tmp_path)) == ["a.yaml", "b.yaml", "c.yaml"]


def test_base_is_merged_and_overrides_win() -> None:
    put("base/far.yaml", "train: {steps: 5, rate: 0.1, drops: [1, 2]}\nmodel: {family: mask_rcnn}")
    put("base/near.yaml", "base: far.yaml\ntrain: {rate: 0.2, drops: [3]}")
    leaf = put("leaf.yaml", "base: base/near.yaml\ntrain: {batch: 4}\nmodel: {mask: {convs: 2}}\n")
    config = load(leaf, ["train.batch=8", "train.batch=2", "model.mask.channels=64"])
    assert (config.train.steps, config.train.rate, config.train.drops, config.train.batch) == (5, 0.2, (3,), 2)
    assert (config.model.family, config.model.mask.convs, config.model.mask.channels) == ("mask_rcnn", 2, 64)


def test_an_empty_section_takes_nothing_away_and_null_is_a_value() -> None:
    put("base.yaml", "train: {steps: 5, clip_norm: 1, warm_up: {steps: 2}}")
    config = load(put("leaf.yaml", "base: base.yaml\ntrain: {warm_up: , clip_norm: }"))
    assert (config.train.warm_up.steps, config.train.clip_norm) == (2, None)


def test_three_bases_are_read() -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "d")):
        put(f"{name}.yaml", f"base: {base}.yaml")
    put("d.yaml", "train: {steps: 7}")
    assert load("a.yaml").train.steps == 7


def test_the_file_named_is_the_one_with_the_wrong_value() -> None:
    put("base/far.yaml", "train: {steps: -1}\ndata: {train: [{images: 5}]}\nmodel: {rpn: {pre_nms_test: 2}}")
    put("near.yaml", "base: base/far.yaml\ntrain: {rate: 1}")
    leaf = put("leaf.yaml", "base: ./near.yaml\ntrain: {batch: 1}")
    assert problem(leaf, ["data.train=[]"]).startswith("base/far.yaml: train.steps: ")
    assert problem(leaf, ["train.steps=1"]).startswith("base/far.yaml: data.train[0].images: ")
    assert problem(leaf, ["train.steps=1", "data.train=[]"]).startswith("base/far.yaml: model.rpn.post_nms_test: ")
    assert problem(leaf, ["train.steps=x", "data.train=[]"]) == (
        "override 'train.steps=x': train.steps: expected a whole number, found 'x' (and 1 more)"
    )
    put("near.yaml", "base: base/far.yaml\ntrain: {steps: 0}")
    assert problem(leaf, ["data.train=[]"]).startswith("near.yaml: train.steps: ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "override 'train.steps': expected key=value, such as train.steps=100"),
        ("=5", "override '=5': expected key=value, such as train.steps=100"),
        ("train..steps=5", "override 'train..steps=5': expected key=value, such as train.steps=100"),
        ("train.steps=[1", "override 'train.steps=[1': expected a YAML value: "),
        ("train.stops=5", "override 'train.stops=5': train.stops: unknown key; did you mean train.steps?"),
        ("train=5", "override 'train=5': train: expected settings such as train.stage, found 5"),
        ("base=a.yaml", "override 'base=a.yaml': base: unknown key; "),
    ],
)
def test_wrong_override_is_one_line(override: str, message: str) -> None:
    assert problem(put("a.yaml", ""), [override]).startswith(message)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "a.yaml: cannot be read: No such file or directory"),
        ({"a.yaml/b": ""}, "a.yaml: cannot be read: Is a directory"),
        ({"a.yaml": b"\xef\xbb\xbfa: \xff"}, "a.yaml: expected UTF-8 text, found byte 0xff in line 1"),
        ({"a.yaml": "train:\n  steps: [1\n"}, "a.yaml: expected YAML: line 3: "),
        (
            {"a.yaml": "train: {steps: 1}\ntrain: {rate: 1}"},
            "a.yaml: expected YAML: line 2: the key train stands twice",
        ),
        ({"a.yaml": "- 1\n- 2"}, "a.yaml: expected sections such as model: and train:, found [1, 2]"),
        ({"a.yaml": b"#" * 4_000_001}, "a.yaml: expected a YAML file, found more than 4 MB"),
        ({"a.yaml": "base: b.yaml"}, "a.yaml: base: b.yaml: cannot be read: No such file or directory"),
        (
            {"a.yaml": "base: zzz"},
            "a.yaml: base: zzz: cannot be read: No such file or directory; maskx recipes lists the names",
        ),
        ({"a.yaml": "base: [b.yaml]"}, "a.yaml: base: expected the path of one file, found ['b.yaml']"),
        (
            {"a.yaml": "base: a.yaml"},
            "a.yaml: base: expected files that end somewhere, found a cycle: a.yaml -> a.yaml",
        ),
        (
            {"a.yaml": "base: d/b.yaml", "d/b.yaml": "base: ../a.yaml"},
            "d/b.yaml: base: expected files that end somewhere, found a cycle: a.yaml -> d/b.yaml -> a.yaml",
        ),
        (
            {"a.yaml": "base: b.yaml", "b.yaml": "base: c.yaml", "c.yaml": "base: d.yaml", "d.yaml": "base: e.yaml"},
            "a.yaml: base: expected at most 3 files in a row, found b.yaml -> c.yaml -> d.yaml -> e.yaml",
        ),
        ({"a.yaml": "base: b.yaml", "b.yaml": "[]"}, "b.yaml: expected sections such as model: and train:, found []"),
    ],
)
def test_wrong_file_is_one_line(files: dict[str, str | bytes], message: str) -> None:
    for path, text in files.items():
        put(path, text)
    assert problem("a.yaml").startswith(message)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    put("a.yaml", "old")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(BadInput, match=r"^a.yaml: cannot be written: No space left on device$"):
        write(Config(), "a.yaml")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    with pytest.raises(BadInput, match=r"^a.yaml/a.yaml: cannot be written: Not a directory$"):
        write(Config(), "a.yaml/a.yaml")
    for folder in ("", ".", "/"):
        with pytest.raises(BadInput, match=f"^{folder}: cannot be written: Is a directory$"):
            write(Config(), folder)
