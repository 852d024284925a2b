"""Runs of the command: what they write, how they end, and how they resume."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import cli
from maskx_tf.checkpoints import io
from maskx_tf.config import Config, load
from maskx_tf.layers.applications import NETWORKS
from maskx_tf.models.rcnn import RCNN
from maskx_tf.training import dry, fit, guard, states
from maskx_tf.training.callbacks import Hooks, Keeper, Stopped, averaged
from maskx_tf.training.journal import Journal
from tests import disk
from tests.small_backbone import SMALL_NETWORK
from tests.training import runs

NO_HOOKS = Hooks()
LOSSES = {"loss", "loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box", "loss_mask", "gradient_norm"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    return runs.recipe(folder, runs.scenes(folder / "data"))


@pytest.fixture(scope="module")
def run(recipe: Path) -> Path:
    """A run of six steps with checkpoints, evaluations and pictures after three and six."""
    out, data = recipe.parent / "run", recipe.parent / "data"
    val = f"data.val=[{{images: {data / 'val'}, annotations: {data / 'instances_val.json'}}}]"
    often = ["evaluate.every=3", "train.pictures_every=3", val]
    callback = f"{{name: tests.training.runs.Recorder, arguments: {{path: {recipe.parent / 'steps.txt'}}}}}"
    often.append(f"train.callbacks=[{callback}]")
    assert cli.run(["train", str(recipe), "train.ema=0.5", *often, "--out", str(out)]) == 0
    return out


def test_own_callback_sees_every_step(run: Path) -> None:
    lines = (run.parent / "steps.txt").read_text(encoding="utf-8").splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(6))
    assert all(0 < float(line.split()[1]) < 100 for line in lines)


def small(recipe: Path, *overrides: str) -> Config:
    """The resolved configuration."""
    config = load(recipe, overrides)
    names = tuple(f"class {number}" for number in range(24))
    return config.model_copy(update={"model": config.model.model_copy(update={"class_names": names})})


def logged(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "log.csv").read_text(encoding="utf-8").splitlines()))


def weights(model: RCNN) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in model.weights}


def test_run_folder(run: Path, recipe: Path) -> None:
    lines = logged(run)
    assert [line["step"] for line in lines] == ["2", "3", "4", "6", "6"]
    assert set(lines[0]) >= LOSSES | {"rate", "images_per_second"}
    trained, evaluated = [lines[0], lines[2], lines[3]], [lines[1], lines[4]]
    assert all(np.isfinite(float(line[name])) for line in trained for name in LOSSES)
    assert all(0.0 <= float(line["box/all/AP"]) <= 1.0 and not line["loss"] for line in evaluated)
    assert [state.step for state in states.all_of(run)] == [3, 6]
    assert [state.metric is not None for state in states.all_of(run)] == [True, True]
    (events,) = (run / "tensorboard").glob("events*")
    tags = [value.tag for event in tf.compat.v1.train.summary_iterator(str(events)) for value in event.summary.value]
    assert tags.count("predictions") == 2
    assert tags.count("loss_mask") == 3
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 6
    assert summary["images"] == 24
    assert json.loads((run / "versions.json").read_text())["tensorflow"] == tf.__version__
    config = load(run / "config.yaml")
    assert len(config.model.class_names) == 24
    own = config.train.model_copy(update={"callbacks": ()})
    assert own == load(recipe, ["train.ema=0.5", "train.pictures_every=3"]).train
    assert summary["figures"].keys() >= {"box/all/AP", "mask/all/AP"}


def test_final_model_has_the_averaged_weights(run: Path) -> None:
    final = weights(io.open_model(run).model)
    last = states.all_of(run)[-1]
    plain = weights(io.load(last.path).model)
    config = load(run / "config.yaml")
    model = fit.compiled(config)
    states.restore(last, model)
    moved = 0.0
    with averaged(model):
        for name, value in weights(model).items():
            np.testing.assert_array_equal(value, final[name], err_msg=name)
            moved = max(moved, float(np.abs(value - plain[name]).max()))
    assert moved > 1e-6
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, plain[name], err_msg=name)


def test_model_folder_knows_its_data(run: Path) -> None:
    meta = io.open_model(run).meta
    assert meta["step"] == 6
    assert len(meta["category_ids"]) == 24
    assert 0 < len(meta["a_classes"]) <= 17


def test_checkpoint_holds_all_that_moves(run: Path) -> None:
    """Model, momentum, running averages and step come back to the bit."""
    config = load(run / "config.yaml")
    model, state = fit.compiled(config), states.all_of(run)[0]
    states.restore(state, model)
    assert int(model.optimizer.iterations) == 3
    again = states.save(run.parent / "again", model, config, 3, {})
    assert digests(state) == digests(again)


def digests(state: states.State) -> dict[str, str]:
    files = json.loads((state.path / "training.json").read_text())["files"]
    return {name: files[name] for name in ("weights.npz", "optimizer.npz")}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    runs.train_eagerly(monkeypatch)


@pytest.mark.usefixtures("eager")
def test_run_goes_on_from_the_newest_whole_checkpoint(run: Path, recipe: Path, capfd: pytest.CaptureFixture) -> None:
    copy = run.parent / "copy"
    shutil.copytree(run, copy)
    damaged = states.all_of(copy)[-1].path / "weights.npz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (copy / "checkpoints" / "step-00000009").mkdir()  # killed before it was whole
    (copy / "checkpoints" / ".step-00000007.123").mkdir()
    shutil.rmtree(copy / "model")
    assert cli.run(["train", str(recipe), "train.ema=0.5", "train.rate=0.005", "--out", str(copy), "--resume"]) == 0
    said = capfd.readouterr().err
    assert "step-00000009: not finished" in said
    assert "step-00000006: damaged: weights.npz is not what was written" in said
    assert "going on from step 3" in said
    assert "train.rate: was 0.01, is now 0.005" in said
    assert [line["step"] for line in logged(copy)] == ["2", "3", "4", "6"]
    assert not list((copy / "checkpoints").glob(".step-*"))
    aside = {path.name for path in (copy / "checkpoints").glob("damaged-*")}
    assert aside == {"damaged-step-00000006", "damaged-step-00000009"}
    assert io.open_model(copy).meta["step"] == 6


def keeper(config: Config, run: Path | None, step: int, *, hooks: Hooks = NO_HOOKS, agreement: Any = None) -> Keeper:
    journal = Journal(None, first=step, total=6, every=9, images=1, say=print, advance=lambda step, text: None)
    return Keeper(
        run,
        config,
        {},
        batch_of=lambda step: {},
        journal=journal,
        hooks=hooks,
        stopped=Stopped(),
        agreement=agreement,
    )


def test_missing_figures_of_the_last_step_are_computed(recipe: Path, tmp_path: Path) -> None:
    """A kill between the last evaluation and the summary."""
    made = keeper(small(recipe), tmp_path, 6, hooks=Hooks(evaluate=lambda model: ({"box/all/AP": 0.5}, None)))
    made.set_model(SimpleNamespace(optimizer=SimpleNamespace(use_ema=False)))
    made.catch_up(states.State(tmp_path, 6, 0.5))
    assert made.figures == {"box/all/AP": 0.5}


def test_finished_run_stays_as_it_is(run: Path, recipe: Path) -> None:
    before = (run / "summary.json").read_bytes()
    assert cli.run(["train", str(recipe), "train.ema=0.5", "--out", str(run), "--resume"]) == 0
    assert (run / "summary.json").read_bytes() == before


def test_checkpoint_that_was_just_written_stays(tmp_path: Path) -> None:
    """With a damaged one of a later step next to it, which a run that goes on from an earlier step sets aside."""
    folder = tmp_path / states.FOLDER
    for step, metric in ((1, 0.9), (3, None), (4, None), (6, None)):
        path = folder / f"step-{step:08d}"
        path.mkdir(parents=True)
        (path / states.FACTS).write_text(json.dumps({"step": step, "metric": metric, "files": {}}))
    states.set_aside(tmp_path, 4)
    states.tidy(tmp_path, 1)
    assert [state.step for state in states.all_of(tmp_path)] == [1, 4]  # the best and the newest


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns(precision: str, recipe: Path) -> None:
    config = small(recipe, f"train.precision={precision}", "train.ema=0.9", "train.rate=0.01")
    model = fit.compiled(config)
    before = weights(model)
    data = tf.data.Dataset.from_tensors(dry.made_up(config, 2)).repeat()
    losses = [model.fit(data, steps_per_epoch=5, verbose=0, shuffle=False).history["loss"][0] for _ in range(3)]
    assert losses[2] < losses[0]
    assert all(value.dtype == np.float32 for value in weights(model).values())
    assert any(not np.array_equal(value, before[name]) for name, value in weights(model).items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "expected a new folder, found a run; --resume goes on with it"),
        (["--resume", "train.ema=null"], "train.ema: the run has 0.5, and a running average cannot begin or end"),
        (
            ["--resume", "train.ema=0.5", "model.box.width=16"],
            "box.width: the run has 32, expected the same, found 16; begin another run",
        ),
        (
            ["--resume", "train.ema=0.5", "train.stage=detector"],
            "train.stage: the run has 'all', expected the same, found 'detector'",
        ),
    ],
)
def test_run_in_the_way_is_one_line(
    run: Path, recipe: Path, overrides: list[str], message: str, capfd: pytest.CaptureFixture
) -> None:
    before = (run / "config.yaml").read_bytes()
    assert cli.run(["train", str(recipe), *overrides, "--out", str(run)]) == 2
    assert message in capfd.readouterr().err.splitlines()[-1]
    assert (run / "config.yaml").read_bytes() == before


def test_a_request_to_stop_is_kept_until_the_workers_are_asked(recipe: Path) -> None:
    asked, ended = [], []

    def agreement(step: int, wish: bool) -> bool:
        asked.append(wish)
        return wish and step == 3

    made, model = keeper(small(recipe), None, 0, agreement=agreement), SimpleNamespace(stop_training=False)
    made.set_model(model)
    for step in (1, 2, 3):
        made.journal.step = step
        model.stop_training = step == 1  # by a callback of the user's
        made.on_train_batch_end(step - 1)
        ended.append(model.stop_training)
    assert asked == [True, True, True]
    assert ended == [False, False, True]


@pytest.mark.usefixtures("eager")
def test_callback_that_stops_the_run_loses_nothing(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    callback = "train.callbacks=[{name: tests.training.runs.StopsAtOnce}]"
    few = ["model.family=faster_rcnn", "train.batch=1", "train.checkpoint_every=9", callback]
    assert cli.run(["train", str(recipe), *few, "--out", str(out)]) == 130
    assert [state.step for state in states.all_of(out)] == [1]


@pytest.mark.usefixtures("eager")
def test_interrupt_saves_and_stops(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = keras.callbacks.Callback.on_train_batch_begin

    def interrupt(self: Any, batch: int, logs: Any = None) -> None:
        plain(self, batch, logs)
        if batch == 1:
            signal.raise_signal(signal.SIGINT)
            monkeypatch.undo()

    monkeypatch.setattr(keras.callbacks.Callback, "on_train_batch_begin", interrupt)
    before = signal.getsignal(signal.SIGINT)
    few = ["model.family=faster_rcnn", "train.batch=1"]
    assert cli.run(["train", str(recipe), *few, "--out", str(tmp_path / "run")]) == 130
    assert [state.step for state in states.all_of(tmp_path / "run")] == [2]
    assert not (tmp_path / "run" / "model").exists()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_a_line(recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with disk.no_room_beyond(30_000):  # enough for the log, not for a checkpoint
        assert cli.run(["train", str(recipe), "train.steps=1", "--out", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said == f"maskx: error: {tmp_path}/run/checkpoints/step-00000001: cannot be written: File too large"
    names = disk.names_in(tmp_path / "run")
    assert not [name for name in names if "checkpoints/" in name or "/." in f"/{name}"]
    assert {"config.yaml", "log.csv", "versions.json"} <= set(names)


@pytest.mark.usefixtures("eager")
def test_loss_that_is_not_finite_is_explained_and_kept(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """A rate that is far too high: the run ends with a report and the batch, and with weights that are finite."""
    out = tmp_path / "run"
    assert cli.run(["train", str(recipe), "train.rate=1e9", "train.clip_norm=null", "--out", str(out)]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert "not finite; first: " in line
    (failed,) = (out / "failed").iterdir()
    assert f"maskx train --replay {failed}" in line
    assert all(np.isfinite(value).all() for value in weights(io.load(failed).model).values())
    found = guard.replay(failed)
    assert found["first"] == guard.read(failed)["first"]
    assert found["first"].startswith(("the output of layer", "loss_", "the gradient of"))
    assert len(found["images"]) == 4


def test_first_unsound_is_named(recipe: Path) -> None:
    config = small(recipe)
    model = fit.compiled(config)
    batch = dry.made_up(config, 2)
    sound = guard.first_unsound(model, batch, 1)
    assert sound.startswith("nothing")
    huge = model.mask.head.trunk.weights[0]
    keep = huge.numpy()
    huge.assign(np.full(huge.shape, 1e38, np.float32))
    assert guard.first_unsound(model, batch, 1).startswith("the output of layer mask_head/trunk")
    huge.assign(keep * np.nan)
    assert guard.first_unsound(model, batch, 1) == f"the weights {huge.path}"
    huge.assign(keep)
    broken = {**batch, "gt_boxes": batch["gt_boxes"] * np.float32(np.nan)}
    assert guard.first_unsound(model, broken, 1) == "the input gt_boxes"


@pytest.mark.slow
def test_parts_do_what_the_whole_does(recipe: Path) -> None:
    """With each part's counts those of the whole: the same images, sampled alike, in one part and in two."""
    config = small(recipe, "train.batch=2", "train.clip_norm=0.1")
    batch = dry.made_up(config, 1)
    twice = {name: np.concatenate([value, value]) for name, value in batch.items()}
    found = []
    for parts in (1, 2):
        model = fit.compiled(small(recipe, "train.batch=2", "train.clip_norm=0.1", f"train.accumulate={parts}"))
        before = weights(model)
        data = tf.data.Dataset.from_tensors(twice).repeat()
        history = model.fit(data, steps_per_epoch=1, verbose=0, shuffle=False)
        found.append((history.history["loss"][0], {k: v - before[k] for k, v in weights(model).items()}))
    assert found[0][0] == pytest.approx(found[1][0], rel=0.02)
    norm = [np.sqrt(sum(float((move**2).sum()) for move in moves.values())) for _, moves in found]
    across = sum(float((found[0][1][name] * found[1][1][name]).sum()) for name in found[0][1])
    assert across / norm[0] / norm[1] > 0.99


@pytest.mark.slow
def test_stock_callbacks_and_optimizer(recipe: Path, tmp_path: Path) -> None:
    """compile and fit as in any Keras program."""
    config = small(recipe)
    data = tf.data.Dataset.from_tensors(dry.made_up(config, 2)).repeat()
    model = fit.start.make(config)
    assert model.learning.clip_norm == config.train.clip_norm == 1.0
    model.compile(optimizer="adam")
    callbacks = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True, monitor="loss"),
        keras.callbacks.TensorBoard(tmp_path / "board", write_graph=False),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
    ]
    history = model.fit(data, epochs=2, steps_per_epoch=2, verbose=0, callbacks=callbacks, shuffle=False)
    assert set(history.history) == LOSSES
    assert len(history.history["loss"]) == 2
    assert (tmp_path / "best.weights.h5").exists()
    found = model.evaluate(data, steps=1, verbose=0, return_dict=True)
    assert set(found) >= LOSSES - {"gradient_norm"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "expected a recipe"),
        (["train", "{recipe}", "train.batch=6", "train.accumulate=4"], "train.accumulate"),
        (["train", "{recipe}", "data.train=[]"], "data.train: expected data sets to learn from, found none"),
        (["train", "{recipe}", "train.strategy=multi_worker"], "expected TF_CONFIG or --workers, found neither"),
        (["train", "{recipe}", "train.stage=mask", "train.weights=nowhere"], "nowhere: no such folder"),
        (["train", "--replay", "nowhere"], "nowhere: expected a folder that a failed run wrote"),
        (["train", "{recipe}", "--out", "{folder}"], "expected a new folder, or a run with config.yaml"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], message: str, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    filled = [one.format(recipe=recipe, folder=recipe.parent) for one in arguments]
    if "--out" not in filled and "--replay" not in filled and len(filled) > 1:
        filled += ["--out", str(tmp_path / "run")]
    assert cli.run(filled) == 2
    assert message in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_masks_cannot_be_learned_from_boxes_alone(recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    known = json.loads((recipe.parent / "data" / "instances_train.json").read_text(encoding="utf-8"))
    known["annotations"] = [{**one, "segmentation": []} for one in known["annotations"]]
    (tmp_path / "boxes.json").write_text(json.dumps(known), encoding="utf-8")
    data = f"data.train=[{{images: {recipe.parent / 'data' / 'train'}, annotations: {tmp_path / 'boxes.json'}}}]"
    assert cli.run(["train", str(recipe), data, "--out", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert "data.train: expected masks of some class for family mask_x_rcnn, found none" in said
    assert cli.run(["train", str(recipe), "data.masks=none", "--out", str(tmp_path / "run")]) == 2
    assert capfd.readouterr().err.splitlines()[-1] == said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_masks_are_learned_from_boxes_alone_where_the_recipe_says_so(recipe: Path, tmp_path: Path) -> None:
    losses = ["model.mask.box_losses=[projection, teacher]", "train.ema=0.5", "train.box_warm_up=0"]
    asked = ["data.masks=none", *losses, "model.mask.regions=jittered", "train.steps=2"]
    assert cli.run(["train", str(recipe), *asked, "--out", str(tmp_path / "run")]) == 0
    with (tmp_path / "run" / "log.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines
    assert all(float(line["loss_mask_projection"]) > 0.0 == float(line["loss_mask"]) for line in lines)
    assert all(float(line["loss_mask_teacher"]) > 0.0 for line in lines)
    assert io.load(tmp_path / "run" / fit.MODEL).meta["a_classes"] == []


def test_run_that_could_not_begin_is_not_in_the_way(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "mobilenet_v2", SMALL_NETWORK)
    network = "model.backbone={name: mobilenet_v2, norm: frozen_batch, frozen_stages: 0, weights: nowhere.h5}"
    for _ in range(2):
        assert cli.run(["train", str(recipe), network, "--out", str(tmp_path / "run")]) == 2
        assert "found no file nowhere.h5" in capfd.readouterr().err.splitlines()[-1]
    assert list((tmp_path / "run").iterdir()) == []
