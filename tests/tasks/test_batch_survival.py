"""A job that is killed several times ends with the rows of a job that was not."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from maskx_tf.tasks.batch import items, merge, plan
from tests.export.exported import encoded, model_folder, picture
from tests.training.runs import finished, python

IMAGES, BROKEN, SHARDS, KILLS = 2000, 20, 8, 10


def photos(folder: Path, images: int, broken: int) -> Path:
    """Image files of 64 x 64 pixels, of which some are cut off, no images, or empty."""
    folder.mkdir()
    wrong = set(np.random.default_rng(0).choice(images, broken, replace=False).tolist())
    for index in range(images):
        data = encoded(picture(64, 64, seed=index))
        if index in wrong:
            data = [data[: len(data) // 2], b"no image", b""][index % 3]
        (folder / f"{index:05}.png").write_bytes(data)
    return folder


def jobs(folder: Path, names: tuple[str, ...], size: int) -> list[Path]:
    """The same job, once for each name."""
    places = list(items.find([str(folder / "photos")], "image"))
    model = folder / "model"
    shutil.copytree(model_folder(), model)
    return [plan.write(folder / name, model, places, size=size).folder for name in names]


def wait_for_shards(job: Path, process: object, count: int) -> None:
    """Waits until so many shards more are done and the next is being written."""
    rows = job / "rows"
    done = len(list(rows.glob("*.parquet"))) + count
    while process.poll() is None and not (
        len(list(rows.glob("[!.]*.parquet"))) >= done and list(rows.glob(".*.parquet.*"))
    ):
        time.sleep(0.005)


@pytest.mark.slow
def test_a_job_killed_ten_times_gives_every_row_once(tmp_path: Path) -> None:
    photos(tmp_path / "photos", IMAGES, BROKEN)
    whole, killed = jobs(tmp_path, ("whole", "killed"), IMAGES // SHARDS)
    command = ["-m", "maskx_tf", "batch", "run"]
    finished(python(*command, str(whole)), seconds=3000)
    draws = random.Random(0)
    for kill in range(KILLS):
        process = python(*command, str(killed))
        wait_for_shards(killed, process, kill % 2)
        time.sleep(draws.uniform(0, 0.6))
        assert process.poll() is None, process.communicate()[0]
        process.kill()
        process.communicate()
    assert 0 < len(merge.status(killed).missing) < SHARDS
    finished(python(*command, str(killed)), seconds=3000)
    assert sorted(path.name for path in (killed / "rows").iterdir()) == sorted(
        path.name for path in (whole / "rows").iterdir()
    )
    for job in (whole, killed):
        found = merge.merge(job, job.with_suffix(".parquet"))
        assert (found.images, found.unread) == (IMAGES, BROKEN)
    assert whole.with_suffix(".parquet").read_bytes() == killed.with_suffix(".parquet").read_bytes()
    rows = pq.read_table(killed.with_suffix(".parquet")).to_pylist()
    assert [Path(row["key"]).stem for row in rows] == [f"{index:05}" for index in range(IMAGES)]
    assert sum(row["status"] != "ok" for row in rows) == BROKEN
    assert sum(len(row["scores"]) for row in rows) > IMAGES
