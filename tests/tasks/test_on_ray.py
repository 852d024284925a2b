"""Jobs on a Ray cluster: the same rows, also when a node dies in the middle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskx_tf import cli
from maskx_tf.errors import BadInput
from maskx_tf.tasks.batch import merge, on_ray
from maskx_tf.tasks.batch.run import run
from tests.tasks.test_batch import refused
from tests.tasks.test_batch_survival import jobs, photos
from tests.training.runs import finished, python


@pytest.mark.slow
def test_a_node_that_dies_costs_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    images, size = 400, 50
    photos(tmp_path / "photos", images, 4)
    here, there = jobs(tmp_path, ("here", "there"), size)
    printed = finished(python("-m", "tests.tasks.on_two_nodes", str(there)), seconds=1200)
    said = json.loads(printed.splitlines()[-1])
    assert (said["done"], said["images"]) == (images // size, images)
    assert 0 < sum(not name.startswith(".") and name.endswith(".parquet") for name in said["when_killed"]) < 8
    run(here)
    for job in (here, there):
        assert merge.merge(job, job.with_suffix(".parquet"))[::2] == (images, 4)
    assert here.with_suffix(".parquet").read_bytes() == there.with_suffix(".parquet").read_bytes()
    assert sorted(path.name for path in (there / "rows").iterdir()) == sorted(
        path.name for path in (here / "rows").iterdir()
    )
    assert cli.run(["batch", "run", str(there), "--engine", "ray"]) == 0  # nothing is left to do, so no cluster starts
    assert capsys.readouterr().out == "0 shards with 0 images done, 8 were done before\n"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there_is_one_line(address: str) -> None:
    with pytest.raises(BadInput, match=f"--address {address}: expected a Ray cluster: "):
        on_ray._check_address(address)
    on_ray._check_address("auto")


def test_options_of_a_cluster_need_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected --engine ray with them" in refused(capsys, "batch", "run", "job", "--gpus", "1")
