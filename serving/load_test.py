"""How a server of this machine bears load: `python serving/load_test.py localhost:8500 --rate 2 --seconds 20`.

Requests come at random moments of a given mean rate, whether earlier ones are answered or not, as they do from many
users; who waits for an answer before asking again sees a slow server as a quiet one. Latency counts from the moment a
request was due. Bounded: at most --in-flight requests at a time (more are counted as not sent), on loopback alone.
"""

from __future__ import annotations

import argparse
import io
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskx_tf.serving.client import Client, ServingError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def run(
    address: str, images: list[bytes], *, rate: float, seconds: float, in_flight: int = 64, timeout: float = 60.0
) -> dict[str, Any]:
    """Figures of one run.

    Args:
        address: of a gRPC or REST port of this machine.
        images: files, asked about in turn.
        rate: requests a second, in the mean.
        seconds: for which requests come.
        in_flight: how many may be under way.
        timeout: of a request.
    """
    host = address.rpartition("://")[2].rpartition(":")[0]
    if host not in LOOPBACK:
        raise SystemExit(f"{address}: expected a server of this machine, {' or '.join(LOOPBACK)}")
    gaps = np.random.default_rng(0).exponential(1.0 / rate, max(int(rate * seconds), 1))
    outcomes: Counter[str] = Counter()
    latencies: list[float] = []
    free = threading.BoundedSemaphore(in_flight)
    # No retries: they would hide what is to be seen.
    with Client(address, timeout=timeout, retries=0) as client, ThreadPoolExecutor(in_flight) as pool:
        client.detect(images[0])

        def ask(index: int, due: float) -> None:
            try:
                outcomes["ok" if client.detect(images[index % len(images)]).ok else "bad image"] += 1
                latencies.append(time.monotonic() - due)
            except ServingError as error:
                outcomes[error.code] += 1
            finally:
                free.release()

        start = due = time.monotonic()
        for index, gap in enumerate(gaps):
            due += gap
            time.sleep(max(due - time.monotonic(), 0.0))
            if free.acquire(blocking=False):
                pool.submit(ask, index, due)
            else:
                outcomes["not sent"] += 1
    elapsed = time.monotonic() - start
    found = (
        {f"p{share}": round(float(np.percentile(latencies, share)), 3) for share in (50, 95, 99)} if latencies else {}
    )
    return {"asked": len(gaps), **outcomes, **found, "answers_per_second": round(outcomes["ok"] / elapsed, 3)}


def example(width: int = 640, height: int = 480) -> bytes:
    """A JPEG file of about the size and weight of a photograph."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def main() -> None:
    """Runs the test as the command line says and prints its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--image", type=Path, action="append", help="a JPEG or PNG file; may be given several times")
    options = parser.parse_args()
    images = [path.read_bytes() for path in options.image or ()] or [example()]
    figures = run(options.address, images, rate=options.rate, seconds=options.seconds, in_flight=options.in_flight)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
