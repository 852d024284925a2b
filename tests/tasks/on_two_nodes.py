"""Runs a job on a Ray cluster of two nodes on this machine, one of which is killed: `on_two_nodes JOB`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from maskx_tf.tasks.batch.on_ray import RayOptions, run_on_ray


def main(job: Path) -> None:
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112, its name; by itself Ray leaves a busy machine to all others
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    held: list[str] = []

    def kill() -> None:
        """Kills the second node while both write a shard and some are done."""
        rows = job / "rows"
        while len(list(rows.glob(".*.parquet.*"))) < 2 or not list(rows.glob("[!.]*.parquet")):
            time.sleep(0.01)
        cluster.remove_node(second, allow_graceful=False)
        held.extend(sorted(path.name for path in rows.iterdir()))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    ran = run_on_ray(job, (0, 1), RayOptions(address=cluster.address))
    print(json.dumps({"done": ran.done, "images": ran.images, "when_killed": held}))
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
