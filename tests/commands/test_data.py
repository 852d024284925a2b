"""`maskx data`: what it prints, what it writes, and one line for an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskx_tf import cli, visualize
from maskx_tf.commands import data as command
from maskx_tf.masks import rle
from maskx_tf.names import COCO
from maskx_tf.synthetic.parameters import usual_a
from tests.data import samples
from tests.data.samples import coco_data, write_json

CCP = Path(__file__).resolve().parents[3] / "shared" / "data" / "ccp"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The output of a command that succeeds in silence."""
    assert cli.run(["data", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a mistake."""
    assert cli.run(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("maskx: error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("maskx: error: ").rstrip("\n")


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that name the sample in the current folder."""
    samples.coco(tmp_path)
    monkeypatch.chdir(tmp_path)
    return ["--images", "images", "--annotations", "instances.json"]


def test_check_of_a_clean_file(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "check", *where)
    assert out == ("instances.json: 2 images, 6 instances of 2 classes, 3 with masks\n\nnothing was found wrong\n")
    figures = json.loads(run(capsys, "check", *where, "--json"))
    sizes = {"images": 2, "classes": 2, "instances": 6, "with_masks": 3, "with_keypoints": 0}
    assert figures == {"name": "instances.json", **sizes, "wrong": 0, "findings": []}


def test_check_prints_what_is_wrong_and_exits_with_2(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    data = coco_data()
    data["annotations"][2]["category_id"] = 5
    data["annotations"][0]["segmentation"] = [[4, 4, 20, 4, 20, 20, 4, 20]]
    data["annotations"] += [{"id": i} for i in range(7)]
    write_json(Path("instances.json"), data)
    assert cli.run(["data", "check", *where]) == 2
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[2] == "error: records that cannot be understood (7): training does not start"
    assert lines[3].startswith("  instances.json: annotations[6] (id 0): image_id: expected a whole number")
    assert lines[8] == "  and 2 more"
    assert lines[10].startswith("error: annotations of unknown categories (1): ")
    assert lines[13].startswith("warning: masks that are just their box (1): they are learned as masks")
    assert captured.err == "maskx: error: instances.json: training would be wrong: 8 errors, listed above\n"
    assert cli.run(["data", "check", *where, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["wrong"] == 8


def test_check_without_images(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/a.jpg").unlink()
    run(capsys, "check", *where, "--no-images")
    assert refused(capsys, "check", *where).endswith("1 errors, listed above")


def test_stats(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    figures = json.loads(run(capsys, "stats", *where, "--json"))
    assert (figures["images"], figures["instances"], figures["with_masks"], figures["crowds"]) == (2, 6, 3, 1)
    assert [(one["name"], one["set"], one["with_masks"]) for one in figures["classes"]] == [
        ("dog", "A", 2),
        ("traffic light", "B", 1),  # that of a crowd
    ]
    figures = json.loads(run(capsys, "stats", *where, "--json", "--masks", "[dog]"))
    assert [(one["name"], one["set"], one["with_masks"]) for one in figures["classes"]] == [
        ("dog", "A", 2),
        ("traffic light", "B", 0),
    ]
    table = run(capsys, "stats", *where).splitlines()
    assert table[0].startswith(
        "instances.json: 2 images, 0 of them empty, at most 3 instances an image; A 1 classes, B 1"
    )
    assert table[2].split()[:4] == ["class", "set", "instances", "with"]
    assert table[-1].split() == ["all", "6", "3", "1", "6", "0", "0", "13.3"]


def test_show(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "show", *where, "--out", "a.png") == "wrote a.png\n"
    assert run(capsys, "show", *where, "--out", "b.png", "--masks", "[dog]", "--cell", "200") == "wrote b.png\n"
    with Image.open("a.png") as first, Image.open("b.png") as second:
        assert first.width > 2 * 320 > second.width > 2 * 200
    assert sorted(os.listdir()) == ["a.png", "b.png", "images", "instances.json"]


def test_masks_kept_apart_do_not_make_a_class_one_of_a(
    where: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    form = rle.encode(samples.blob(30, 20, 39, 29) > 0)
    apart = {**coco_data(), "annotations": [{"id": 104, "image_id": 1, "segmentation": form}]}
    where = [*where, "--masks-b", str(write_json(Path("apart/b.json"), apart))]
    drawn: list[tuple[set[str], int]] = []
    draw = visualize.draw

    def watch(image: Any, detections: Any, names: Any, *, a_classes: Any, **others: Any) -> Any:
        drawn.append((set(a_classes), int(detections.masks.any(axis=(1, 2))[detections.classes == 2].sum())))
        return draw(image, detections, names, a_classes=a_classes, **others)

    monkeypatch.setattr(visualize, "draw", watch)
    for policy, a_names, counts in (
        ("all", {"dog"}, {"dog": 2, "traffic light": 0}),
        ("[dog]", {"dog"}, {"dog": 2, "traffic light": 0}),
        ("oracle", {"dog", "traffic light"}, {"dog": 2, "traffic light": 1}),
    ):
        drawn.clear()
        run(capsys, "show", *where, "--masks", policy, "--out", "a.png")
        assert [names for names, _ in drawn] == [a_names] * 2
        # The crowd has a mask, and the other traffic light one apart, which is drawn unless the policy leaves it out.
        assert sum(masks for _, masks in drawn) == (0 if policy == "[dog]" else 2)
        figures = json.loads(run(capsys, "stats", *where, "--masks", policy, "--json"))
        found = {one["name"]: one["with_masks"] - one["crowds"] * (policy != "[dog]") for one in figures["classes"]}
        assert found == counts
        assert {one["name"] for one in figures["classes"] if one["set"] == "A"} == a_names
    assert refused(capsys, "stats", *where[:-2], "--masks", "oracle").startswith("masks: oracle: expected a data set")


def test_show_of_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, sample in samples.SAMPLES.items():
        source = sample(tmp_path / name)
        where = ["--images", str(source.images), "--annotations", str(source.annotations), "--format", source.format]
        run(capsys, "show", *where, "--out", str(tmp_path / f"{name}.png"), "--count", "1")
        with Image.open(tmp_path / f"{name}.png") as sheet:
            assert sheet.width > 320


def test_show_of_what_cannot_be_shown(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "show", *where, "--out", "instances.json/a.png").startswith(
        "instances.json/a.png: cannot be written"
    )
    Path("images/a.jpg").unlink()
    assert refused(capsys, "show", *where, "--out", "a.png") == (
        "images/a.jpg: image 1 of instances.json: expected an image, found no such file"
    )
    assert sorted(os.listdir()) == ["images", "instances.json"]


def test_split(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sets = json.loads(run(capsys, "split", "E1_A20", "--json"))
    assert (len(sets["a"]), len(sets["b"])) == (20, 60)
    assert {*sets["a"], *sets["b"]} == set(COCO)
    assert run(capsys, "split", "[dog]", "--annotations", "instances.json") == (
        "A, 1 classes: dog\n\nB, 1 classes: traffic light\n"
    )
    assert "did you mean 'dog'?" in refused(capsys, "split", "[dgo]")
    assert "expected all, none, oracle, voc" in refused(capsys, "split", "E1_A21")


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, names = samples.voc(tmp_path), tmp_path / "all.json", tmp_path / "names.yaml"
    names.write_text("tvmonitor: tv\nperson: null\n")
    where = ["--images", str(source.images), "--annotations", str(source.annotations), "--format", "voc"]
    said = run(capsys, "convert", *where, "--out", str(out), "--names", str(names), "--masks", "[tv]")
    assert said == f"wrote {out}: 2 images, 3 instances, 0 with masks\n"
    data = json.loads(out.read_text())
    assert {one["name"] for one in data["categories"]} >= {"tv", "dog"}
    assert [one["file_name"] for one in data["images"]] == ["2007_1.jpg", "2007_2.jpg"]
    assert not any("segmentation" in one for one in data["annotations"])
    assert "expected one of coco, voc" in refused(capsys, "convert", *where[:-1], "vco", "--out", str(out))


def test_synth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--images", "10", "--size", "64", "--workers", "1"]
    said = run(capsys, "synth", "--out", "bench", *options)
    assert said.startswith("wrote bench: train 7 images with ")
    assert said.endswith("; 28 of 40 classes have masks\n")
    assert json.loads(run(capsys, "synth", "--out", "more", *options, "--classes", "20", "--json"))["recipe"]["a"] == 16
    run(capsys, "check", "--images", "bench/train", "--annotations", "bench/instances_train.json")
    masks_b = ["--masks-b", "bench/masks_b_val.json"]
    val = ["--images", "bench/val", "--annotations", "bench/instances_val.json", "--json"]
    plain, apart, oracle = (
        json.loads(run(capsys, "stats", *val, *more)) for more in ([], masks_b, [*masks_b, "--masks", "oracle"])
    )
    assert plain == apart
    assert oracle["b_classes"] < plain["b_classes"]
    assert "expected a new folder" in refused(capsys, "synth", "--out", "bench", *options)
    assert "--workers 999: expected 0 to 256" in refused(capsys, "synth", "--out", "x", "--workers", "999")
    assert "--size 5: expected 64 to 1024" in refused(capsys, "synth", "--out", "x", "--size", "5")
    assert "--companions nan: expected 0 to 1" in refused(capsys, "synth", "--out", "x", "--companions", "nan")
    assert sorted(os.listdir()) == ["bench", "more"]


def test_an_interrupt_of_synth_leaves_nothing(tmp_path: Path) -> None:
    # The shell's Ctrl-C reaches all processes of the group, the drawing ones, too.
    code = (
        "import os, signal, sys, threading; from maskx_tf import cli; os.setpgrp(); "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background jobs ignore it
        "threading.Timer(2, lambda: os.killpg(0, signal.SIGINT)).start(); "
        "sys.exit(cli.run(['data', 'synth', '--out', 'bench', '--images', '100000', '--workers', '2']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "maskx: interrupted\n")
    assert os.listdir(tmp_path) == []


def test_the_usual_number_of_classes_with_masks_is_that_of_the_recipe() -> None:
    assert usual_a(command.USUAL.classes) == command.USUAL.a


@pytest.mark.skipif(not CCP.exists(), reason="Clothing Co-Parsing is not next to the project (../shared/data/ccp)")
def test_on_real_photographs(capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--images", str(CCP / "images"), "--annotations", str(CCP / "instances_val.json")]
    report = json.loads(run(capsys, "check", *where, "--json"))
    assert (report["images"], report["instances"], report["with_masks"], report["wrong"]) == (100, 731, 731, 0)
    assert {one["kind"] for one in report["findings"]} <= {"unused_class", "rectangle_mask", "empty_image"}
    figures = json.loads(run(capsys, "stats", *where, "--json", "--masks", "{random: {a: 20, seed: 3}}"))
    assert sum(one["set"] == "A" for one in figures["classes"]) <= 20
    assert 0 < figures["with_masks"] < 731
