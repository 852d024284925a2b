"""The access log: one JSON object for each request of either port."""

from __future__ import annotations

import datetime
import json
import logging
import re
import time
from typing import Any

from maskx_tf.files import Json

log = logging.getLogger("maskx.serving.access")
# https://www.w3.org/TR/trace-context: version, trace, span of the caller, flags; ids of zeros alone are none.
TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
LONGEST_ENTRY = 200  # letters of what the client chose


class Record:
    """A running request; its line of the log is written when it ends.

    Args:
        port: "grpc" or "rest".
        client: its address.
        method: GET, or the name of a gRPC method.
        path: over HTTP; empty for gRPC.
        traceparent: the header of that name, if the request has one.
    """

    def __init__(self, port: str, client: str, method: str, path: str, traceparent: str | None) -> None:
        self._start = time.monotonic()
        self._fields: Json = {"port": port, "client": client, "method": method[:LONGEST_ENTRY]}
        if path:
            self._fields["path"] = path[:LONGEST_ENTRY]
        found = TRACEPARENT.fullmatch(traceparent or "")
        self._trace = {"trace_id": found[1], "span_id": found[2]} if found else {}

    def write(self, status: str | int, level: int = logging.INFO, **more: Any) -> None:
        """Writes the line, with further fields."""
        if log.isEnabledFor(level):
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            seconds = round(time.monotonic() - self._start, 4)
            fields = {"time": now, **self._fields, "status": status, "seconds": seconds, **more, **self._trace}
            log.log(level, json.dumps(fields))
