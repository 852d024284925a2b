"""Steps that every HTTP request passes: access control, security headers, the access log, JSON errors, and draining."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskx_tf.serving import status as codes
from maskx_tf.serving.server.access import Record
from maskx_tf.serving.server.service import Service
from maskx_tf.serving.status import ServingError, invalid

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
HOST = re.compile(r"(?:\[(?P<address>[^\]]+)\]|(?P<name>[^\s\[\]@:/?#]+))(?::\d*)?")
ALIVE = "/healthz"  # is answered to the end
QUIET = (ALIVE, "/readyz", "/metrics", "/monitoring/prometheus/metrics")  # requested every few seconds by machines
log = logging.getLogger("maskx.serving")


class Gate:
    """The outermost layer of the application.

    Args:
        app: the app that answers.
        service: whose drain refuses requests.
        hosts: names under which the server may be asked, besides addresses.
        origins: the origins of pages on other servers that may ask.
    """

    def __init__(self, app: ASGIApp, service: Service, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._app, self._service = app, service
        self._hosts, self._origins = {name.lower() for name in hosts}, set(origins)
        self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        headers = Headers(scope=scope)
        path = scope["path"]
        client = ":".join(map(str, scope["client"] or ()))
        record = Record("rest", client, scope["method"], path, headers.get("traceparent"))
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer.update(SECURITY)
                if self._service.is_draining:
                    answer["Connection"] = "close"
            await send(message)

        self.active += 1
        try:
            refused = self._refuses(scope, headers)
            await (self._app if refused is None else refused)(scope, receive, send_on)
        except asyncio.CancelledError:
            if not self._service.is_draining:
                raise
            # uvicorn cancels what has no answer when the time to stop is over.
            if not status:
                late = ServingError(codes.UNAVAILABLE, "the server stopped before the answer was ready")
                await error_response(late)(scope, receive, send_on)
        except Exception:
            log.exception("%s %s", scope["method"], path)
            if not status:
                await error_response(ServingError(codes.INTERNAL, "the server failed; its log says more"))(
                    scope, receive, send_on
                )
        finally:
            self.active -= 1
            record.write(status, logging.DEBUG if path in QUIET else logging.INFO)

    def _refuses(self, scope: Scope, headers: Headers) -> Response | None:
        # h11 uses the first of these headers; a proxy in front of this server might use the other.
        if "transfer-encoding" in headers and ("content-length" in headers or scope["http_version"] != "1.1"):
            reason = "Transfer-Encoding together with Content-Length or HTTP/1.0"
            response = error_response(invalid(reason))
            response.headers["Connection"] = "close"
            return response
        host, origin = headers.get("host", ""), headers.get("origin")
        if host and not is_known(host, self._hosts):
            reason = f"the host {host!r} is unknown here: maskx serve --allow-host adds names"
            return error_response(ServingError(codes.PERMISSION_DENIED, reason))
        if origin is not None and origin.partition("://")[2] != host and origin not in self._origins:
            reason = f"a page of {origin!r} may not ask: maskx serve --allow-origin adds pages"
            return error_response(ServingError(codes.PERMISSION_DENIED, reason))
        if self._service.is_draining and scope["path"] != ALIVE:
            return error_response(ServingError(codes.UNAVAILABLE, "the server is stopping"))
        return None


def is_known(host: str, names: Iterable[str]) -> bool:
    """Whether a Host header names an address or one of these names.

    A page of another site can make its own name lead to this server (DNS rebinding), and then read answers as if they
    were its own. It cannot do so with an address.
    """
    found = HOST.fullmatch(host.lower())
    if found is None:
        return False
    try:
        ipaddress.ip_address(found["address"] or found["name"])
    except ValueError:
        return (found["name"] or "").rstrip(".") in names
    return True


def error_response(error: ServingError) -> Response:
    """The error as JSON."""
    return Response(json.dumps({"error": error.reason}), error.number, media_type="application/json")
