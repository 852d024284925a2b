"""Runs small enough for a test: a few synthetic scenes, a small Mask^X R-CNN, and the command that trains it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
import yaml

from maskx_tf import cli
from maskx_tf.models.trainable import Trainable
from maskx_tf.synthetic import generate
from maskx_tf.synthetic.parameters import Recipe

ROOT = Path(__file__).resolve().parents[2]


def scenes(folder: Path) -> Path:
    """A data set of 14 scenes for training; its classes are few enough that most are seen."""
    generate.generate(Recipe(images=20, size=64, classes=24, a=17), folder, workers=1)
    return folder


def recipe(folder: Path, data: Path, **train: object) -> Path:
    """A configuration in a folder."""
    settings = {
        "model": {
            "input": {"canvas": [64, 64], "short_side": 64, "long_side": 64},
            "backbone": {"name": "resnet_small", "norm": "group", "frozen_stages": 0, "fpn_channels": 32},
            "anchors": {"sizes": [[8], [16], [32], [48], [64]]},
            "rpn": {"pre_nms_train": 40, "pre_nms_test": 40, "post_nms_train": 20, "post_nms_test": 10, "samples": 32},
            "box": {"width": 32, "rois": 16, "positive_fraction": 0.5},
            "mask": {"channels": 32, "convs": 1},
            "detections": {"limit": 5},
        },
        "data": {
            "train": [{"images": str(data / "train"), "annotations": str(data / "instances_train.json")}],
            "max_instances": 8,
            "workers": 1,
        },
        "train": {
            "steps": 6,
            "batch": 4,
            "rate": 0.01,
            "warm_up": {"steps": 0},
            "drops": [],
            "clip_norm": 1.0,
            "checkpoint_every": 3,
            "log_every": 2,
            **train,
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


class Recorder(keras.callbacks.Callback):
    """A user's callback: writes the loss of each step to a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            print(batch, float((logs or {})["loss"]), file=file)


class StopsAtOnce(keras.callbacks.Callback):
    """Ends the run after its first step, as Keras' own callbacks do."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.model.stop_training = True


class KilledOnce(keras.callbacks.Callback):
    """Ends the process without warning after the second step of the second stage, if no earlier one did so.

    Args:
        run: the folder of a run in stages.
    """

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = Path(run)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        mark = self.run.with_suffix(".killed")
        if batch == 2 and list(self.run.glob("stages/1_*/summary.json")) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def train_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes models take their steps without a graph: to trace one takes longer than the few steps of a test."""
    plain = Trainable.compile

    def compile_eagerly(self: Trainable, *arguments: Any, **options: Any) -> None:
        plain(self, *arguments, **options, run_eagerly=True)

    monkeypatch.setattr(Trainable, "compile", compile_eagerly)


def learned_by_heart(
    folder: Path, *overrides: str, steps: int, rate: float, keypoints: bool = False
) -> dict[str, float]:
    """What a small model finds in the eight scenes, on a canvas of 128, that it was trained on, 4 a step."""
    data = folder / "data"
    generate.generate(Recipe(images=20, size=128, classes=24, a=17), data, workers=1, keypoints=keypoints)
    path = data / "instances_train.json"
    whole = json.loads(path.read_text())
    whole["images"] = whole["images"][:8]
    kept = {image["id"] for image in whole["images"]}
    whole["annotations"] = [one for one in whole["annotations"] if one["image_id"] in kept]
    path.write_text(json.dumps(whole))
    settings = [
        "model.input={canvas: [128, 128], short_side: 128, long_side: 128}",
        *overrides,
        "model.box.rois=64",
        "model.box.width=256",
        "model.mask={channels: 64, convs: 2}",
        "model.anchors={sizes: [[12], [24], [48], [72], [100]]}",
        "model.rpn={pre_nms_train: 300, pre_nms_test: 300, post_nms_train: 200, post_nms_test: 50, samples: 128}",
        "model.detections.limit=20",
        f"data.val=[{{images: {data / 'train'}, annotations: {path}}}]",
        "data.flip=false",
        f"train.rate={rate}",
        f"train.steps={steps}",
        "train.warm_up={steps: 50, start: 0.1}",
        "train.schedule=cosine",
        "train.clip_norm=10.0",
        "train.weight_decay=0",
        f"train.checkpoint_every={steps}",
    ]
    out = folder / "run"
    assert cli.run(["train", str(recipe(folder, data)), *settings, "--out", str(out)]) == 0
    figures: dict[str, float] = json.loads((out / "summary.json").read_text())["figures"]
    print(figures)
    return figures


def python(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Python in a process of its own, in which what is said once for all, such as determinism, may be said."""
    plain = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=plain | quiet,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def finished(process: subprocess.Popen[str], seconds: int = 300) -> str:
    """What it printed, once it ended well."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output[-3000:]
    return output
