"""The report: its charts, its gallery, its map of classes, and the page that holds them all."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskx_tf.checkpoints import npz
from maskx_tf.cli import run
from maskx_tf.commands.doctor.machine import browser
from maskx_tf.config import Config
from maskx_tf.config import write as write_config
from maskx_tf.evaluation.metrics import measure
from maskx_tf.evaluation.store import Store
from maskx_tf.report import embeddings, gallery
from maskx_tf.report.page import Subject, page
from tests.evaluation import made_up
from tests.report.html import Page

CHROMIUM = browser()


def assert_self_contained(text: str) -> Page:
    """Nothing in the page is asked of the network."""
    parsed = Page(text)
    for tag, name, value in parsed.attributes:
        assert tag != "script"
        if name in ("src", "href", "srcset", "xlink:href", "data", "action"):
            assert value.startswith("data:"), (tag, name, value[:50])
    assert "url(" not in text
    assert "@import" not in text
    return parsed


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, an evaluation of it, and a run with a log, a model and an evaluation."""
    whole = tmp_path_factory.mktemp("report")
    truth = made_up.truth()
    (whole / "images").mkdir()
    rng = np.random.default_rng(0)
    for image in truth["images"]:
        image["file_name"] = f"{image['id']}.png"
        pixels = rng.integers(0, 255, [made_up.HEIGHT, made_up.WIDTH, 3], np.uint8)
        Image.fromarray(pixels).save(whole / "images" / image["file_name"])
    (whole / "instances.json").write_text(json.dumps(truth))
    results = made_up.results(truth)
    figures = measure(truth, results, kinds=("box", "mask"), classes_a=made_up.A).as_json()
    for folder in (whole / "eval", whole / "run" / "eval"):
        held = Store(folder / "detections.jsonl", "")
        for image in truth["images"]:
            held.add(image["id"], [one for one in results if one["image_id"] == image["id"]])
        where = {"val": [{"images": str(whole / "images"), "annotations": str(whole / "instances.json")}]}
        name = f"<{folder.relative_to(whole).parts[0]}> & co"
        facts = {"name": name, "a_classes": sorted(made_up.A), "data": where, "model": None}
        (folder / "metrics.json").write_text(json.dumps({**facts, **figures}))
    log = ["step,loss,loss_mask,mask/B/AP", "20,2.5,1.5,", "40,2.0,nan,", "40,,,0.21", "60,1.5,0.5"]
    (whole / "run" / "log.csv").write_text("\n".join(log))
    write_model(whole / "run" / "model")
    return whole


@pytest.fixture
def here(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which its evaluations name."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("**/metrics.json"):
        path.write_text(path.read_text().replace(str(whole), str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_model(folder: Path, reads: str = "cls_box") -> dict[str, np.ndarray]:
    """A model folder as far as the map looks at it."""
    folder.mkdir(parents=True)
    transfer = {"input": reads, "embedding": "embedding.npy"} if reads == "embedding" else {"input": reads}
    config = Config.model_validate({"model": {"class_names": list(made_up.CATEGORIES.values()), "transfer": transfer}})
    write_config(config, folder / "config.yaml")
    (folder / "model.json").write_text('{"format": 1}')
    rng = np.random.default_rng(0)
    arrays = {
        "box_predictor/class_rows": rng.normal(size=[6, 8]),
        "box_predictor/box_rows": rng.normal(size=[5, 4, 8]),
        "table": rng.normal(size=[5, 3]),
    }
    npz.write(folder / "weights.npz", arrays.items())
    return arrays


def test_the_report_of_a_run_and_an_evaluation(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "run", "eval/metrics.json", "--out", "report.html", "--pictures", "1", "--score", "0.4"]) == 0
    assert capsys.readouterr().out.startswith("wrote report.html: 2 models and evaluations, ")
    text = Path("report.html").read_text(encoding="utf-8")
    parsed = assert_self_contained(text)
    told = " ".join(parsed.words)
    for words in ("2 models", "Side by side", "<run> & co", "<eval> & co", "Loss over the training", "Mask AP of each"):
        assert words in told
    for words in ("The best images", "From the middle", "The worst images", "Drawn at random", "Classes as T sees"):
        assert told.count(words) == (1 if words == "Classes as T sees" else 2)
    sources = [value for tag, name, value in parsed.attributes if (tag, name) == ("img", "src")]
    assert len(sources) == 2 * 4 * 2  # subjects, groups, truth and prediction
    first = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    assert (first.format, max(first.size)) == ("JPEG", gallery.SIDE)
    badges = [value for tag, name, value in parsed.attributes if name == "class" and "badge" in value]
    assert {"badge A", "badge B"} == set(badges)


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(here: Path, capsys) -> None:
    assert run(["report", "nothing", "--out", "instances.json/a.html"]) == 2
    assert "instances.json/a.html: cannot be written: Not a directory" in capsys.readouterr().err


def test_two_evaluations_of_one_model_have_different_names(here: Path) -> None:
    shutil.copytree("eval", "again")
    assert run(["report", "eval", "again", "run", "--out", "report.html", "--pictures", "0"]) == 0
    told = " ".join(Page(Path("report.html").read_text()).words)
    assert "<eval> & co (eval)" in told
    assert "<eval> & co (again)" in told
    assert "<run> & co" in told
    assert "<run> & co (run)" not in told


def test_a_run_is_named_by_the_folder_that_the_command_runs_in(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is nothing but a log."""
    shutil.rmtree("run/eval")
    shutil.rmtree("run/model")
    monkeypatch.chdir("run")
    assert run(["report", ".", "--out", "../report.html"]) == 0
    told = " ".join(Page(Path("../report.html").read_text()).words)
    assert "There is no evaluation here yet" in told
    assert "run" in told


@pytest.mark.parametrize("key", ["masks_b", "names", "model"])
def test_files_that_have_moved_away_are_a_note(here: Path, key: str) -> None:
    """Another thing may stand in the place of the model, as in the folder of a run that was cleaned up."""
    Path("elsewhere").mkdir()
    facts = json.loads(Path("eval/metrics.json").read_text())
    places = {"masks_b": facts["data"]["val"][0], "names": facts["data"], "model": facts}
    places[key][key] = "elsewhere" if key == "model" else "gone"
    Path("eval/metrics.json").write_text(json.dumps(facts))
    assert run(["report", "eval", "--out", "report.html"]) == 0
    told = " ".join(Page(Path("report.html").read_text()).words)
    assert ("No pictures: the data set that was evaluated is no longer where it was." in told) == (key != "model")


def test_what_is_missing_is_left_out(here: Path) -> None:
    shutil.rmtree("run/eval")
    shutil.rmtree("run/model")
    Path("images").rename("moved")
    assert run(["report", "run", "eval", "--out", "report.html"]) == 0
    told = " ".join(assert_self_contained(Path("report.html").read_text()).words)
    assert "There is no evaluation here yet: maskx eval run" in told
    assert "No pictures: the data set that was evaluated is no longer where it was." in told
    assert "Classes as T sees" not in told
    Path("eval/detections.jsonl").unlink()
    assert run(["report", "eval", "--out", "report.html"]) == 0
    assert "No pictures: eval holds no detections.jsonl" in Path("report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "nothing: no such file or folder"),
        (["images"], "images: expected metrics.json, log.csv or a model"),
        (["instances.json"], "instances.json: expected the figures of maskx eval"),
        (["broken"], "broken/log.csv: expected a column step, found loss"),
        (["other"], "other/detections.jsonl: expected detections that maskx eval wrote"),
    ],
)
def test_mistakes_are_one_line(here: Path, capsys: pytest.CaptureFixture[str], arguments, said) -> None:
    Path("broken").mkdir()
    Path("broken/log.csv").write_text("loss\n1\n")
    shutil.copytree("eval", "other")
    Path("other/detections.jsonl").write_text("notes\n")
    assert run(["report", *arguments, "--out", "report.html"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("report.html").exists()


def test_a_report_without_classes_divided_and_without_objects() -> None:
    truth = made_up.truth()
    for objects in (truth["annotations"], []):
        figures = measure({**truth, "annotations": objects}, [], kinds=("box",)).as_json()
        assert_self_contained(page([Subject("a", figures), Subject("b")]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("groups", {}),
        ("groups", {"mask": {"B": {}}}),
        ("groups", {"mask": {"all": {"AP": "x"}}}),
        ("classes", {"mask": [{"name": "cat"}]}),
        ("curves", [1]),
        ("boxes", None),
        ("data", {"val": 3}),
        ("data", {"val": [{"images": "images"}]}),
        ("a_classes", "cat"),
    ],
)
def test_figures_that_are_not_whole(here: Path, capsys: pytest.CaptureFixture[str], key: str, value) -> None:
    figures = json.loads(Path("eval/metrics.json").read_text())
    Path("eval/metrics.json").write_text(json.dumps({**figures, key: value}))
    assert run(["report", "eval", "--out", "report.html"]) == 2
    error = capsys.readouterr().err
    assert f"eval/metrics.json: expected the figures of maskx eval: {key}" in error
    assert error.count("\n") == 1


def test_quality_of_an_image() -> None:
    truth = made_up.truth()
    objects = [one for one in truth["annotations"] if one["image_id"] == 101]
    found = [{**one, "score": 0.9} for one in objects if not one["iscrowd"]]
    size = (made_up.HEIGHT, made_up.WIDTH)
    assert len(found) >= 2
    assert gallery.quality(objects, found, *size) == pytest.approx(1.0)
    assert gallery.quality(objects, [], *size) == 0.0
    assert gallery.quality([], [], *size) == 1.0
    assert gallery.quality([], found, *size) == 0.0
    some = gallery.quality(objects, found[1:], *size)
    assert some == pytest.approx((len(found) - 1) / (len(found) - 0.5))
    twice = gallery.quality(objects, [*found, *found], *size)
    assert twice == pytest.approx(1 / 1.5)
    wrong = [{**one, "category_id": 90} for one in found]
    assert gallery.quality(objects, wrong, *size) == 0.0
    boxes = [{key: value for key, value in one.items() if key != "segmentation"} for one in found]
    assert gallery.quality(objects, boxes, *size) == pytest.approx(1.0)


def test_choice_of_images() -> None:
    qualities = {number: number / 20 for number in range(20)}
    chosen = gallery.choose(qualities, 3)
    groups = {group: [image for other, image in chosen if other == group] for group in ("best", "worst", "median")}
    assert groups == {"best": [19, 18, 17], "worst": [0, 1, 2], "median": [10, 9, 8]}
    assert len({image for _, image in chosen}) == len(chosen) == 12
    assert gallery.choose(qualities, 3, seed=1)[:9] == chosen[:9]
    assert gallery.choose(qualities, 3, seed=1)[9:] != chosen[9:]
    assert len(gallery.choose({1: 0.5, 2: 0.1}, 3)) == 2
    assert gallery.choose({}, 3) == []


@pytest.mark.parametrize(("reads", "source"), [("cls", "class rows"), ("box", "box rows"), ("embedding", "a fixed")])
def test_what_t_reads_is_mapped(tmp_path: Path, reads: str, source: str) -> None:
    arrays = write_model(tmp_path / "model", reads)
    rows = {
        "cls": arrays["box_predictor/class_rows"][1:],
        "box": arrays["box_predictor/box_rows"].reshape(5, 32),
        "embedding": arrays["table"],
    }[reads]
    found = embeddings.of_model(tmp_path)
    assert found is not None
    assert found.source.startswith(source)
    assert found.names == tuple(made_up.CATEGORIES.values())
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found.places, embeddings.principal(unit)[0])


def test_a_model_without_t_has_no_map(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_config(Config.model_validate({"model": {"family": "mask_rcnn"}}), tmp_path / "model" / "config.yaml")
    assert embeddings.of_model(tmp_path) is None


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_page_fits_a_phone(here: Path) -> None:
    assert run(["report", "run", "eval", "--out", "report.html"]) == 0
    text = Path("report.html").read_text()
    probe = "<script>document.title=[innerWidth,document.documentElement.scrollWidth].join()</script></body>"
    Path("probe.html").write_text(text.replace("</body>", probe))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={here}/browser"]
    target = ["--window-size=390,844", "--dump-dom", (here / "probe.html").as_uri()]
    done = subprocess.run([str(CHROMIUM), *options, *target], capture_output=True, text=True, timeout=120)
    shown, needed = re.findall(r"<title>(\d+),(\d+)</title>", done.stdout)[0]
    assert int(needed) <= int(shown)


def test_gallery_draws_the_keypoints_of_truth_and_prediction() -> None:
    """Each half of a picture changes with its own keypoints and with the lines between them."""
    box = {"image_id": 1, "category_id": 1, "bbox": [20, 20, 160, 160]}
    whole = {**box, "keypoints": [30, 30, 2, 170, 30, 1, 100, 170, 2]}
    blank = np.full([200, 200, 3], 90, np.uint8)

    def shown(objects: object, found: object, skeleton: object) -> tuple[str, str]:
        category = {"id": 1, "name": "kite", "keypoints": ["left", "right", "low"], "skeleton": skeleton}
        truth = {"images": [{"id": 1, "height": 200, "width": 200}], "annotations": [objects], "categories": [category]}
        (one,) = gallery.pictures(
            truth, lambda: iter([(1, [{**found, "score": 0.9}])]), lambda _: blank, a_classes=None, each=1
        )
        return one.truth, one.prediction

    bare, points, lines = shown(box, box, []), shown(whole, whole, []), shown(whole, whole, [[1, 2], [2, 3]])
    assert len({*bare, *points, *lines}) == 6
    one_sided = shown(whole, box, [[1, 2], [2, 3]])
    assert one_sided == (lines[0], bare[1])
    unsure = {**whole, "keypoints": [30, 30, 0, 170, 30, 0, 100, 170, 0]}
    assert shown(box, unsure, [[1, 2], [2, 3]])[1] == lines[1]
    absent = {**whole, "keypoints": [0, 0, 0] * 3}
    assert shown(absent, box, [[1, 2]]) == bare
