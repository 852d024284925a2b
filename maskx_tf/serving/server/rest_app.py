"""Routes of the HTTP port: TF Serving's JSON, health, Prometheus' metrics, and a page for people."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any
from urllib.parse import unquote

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from maskx_tf.files import Json
from maskx_tf.protocol import messages
from maskx_tf.protocol.tensors import NAMES
from maskx_tf.serving import status as codes
from maskx_tf.serving.server.gate import error_response
from maskx_tf.serving.server.predict import Predict
from maskx_tf.serving.server.service import Service
from maskx_tf.serving.status import HTTP_CODES, ServingError, invalid

MODEL_PATH = re.compile(
    r"/v1/models(?:/(?P<name>[^/:]*))?(?:/versions/(?P<version>\d{1,18}))?(?P<rest>/metadata|:\w+)?"
)
PAGE_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
ModelVersion = tuple[str, int | None]


def make_app(service: Service, origins: list[str]) -> Starlette:
    """The application.

    Args:
        service: the service that answers.
        origins: the origins of pages on other servers that may ask.
    """

    def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    def ready(request: Request) -> Response:
        if not service.is_ready():
            raise ServingError(codes.UNAVAILABLE, "no version is loaded yet")
        return PlainTextResponse("ok\n")

    async def alive(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def labels(request: Request) -> Response:
        with service.versions.using("", None) as version:
            answer = {"model": service.versions.name, "version": version.number, "labels": version.labels}
            answer["skeleton"] = version.skeleton
        return JSONResponse(answer)

    routes = [
        Route("/healthz", alive),
        Route("/readyz", ready),
        Route("/metrics", metrics),
        Route("/monitoring/prometheus/metrics", metrics),
        Route("/labels.json", labels),
        Route("/v1/models{rest:path}", _Models(service)),
        *(Route(path, _file(*file)) for path, file in PAGE_FILES.items()),
    ]
    cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    handlers = {HTTPException: _http_error, ServingError: _serving_error}
    return Starlette(routes=routes, middleware=[cors] if origins else [], exception_handlers=handlers)


class _Models:
    """The paths of models and versions."""

    def __init__(self, service: Service) -> None:
        self._service, self._predict = service, Predict(service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode("ascii")
        found = MODEL_PATH.fullmatch(path)
        if found is None:
            raise HTTPException(404)
        model = (unquote(found["name"] or ""), None if found["version"] is None else int(found["version"]))
        verb = found["rest"]
        if verb in (None, "/metadata"):
            _require(scope, "GET", "HEAD")
            response = JSONResponse((_status if verb is None else _metadata)(self._service, model))
            await response(scope, receive, send)
        elif verb == ":predict":
            _require(scope, "POST")
            await self._predict.answer(model, scope, receive, send)
        elif verb in (":classify", ":regress"):
            _require(scope, "POST")
            raise invalid(f"the model has no signatures for {verb[1:]}: use :predict")
        else:
            raise HTTPException(404)


def _require(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        raise HTTPException(405, headers={"Allow": ", ".join(methods)})


def _status(service: Service, model: ModelVersion) -> Json:
    states = [
        {
            "version": str(number),
            "state": messages.STATES[state],
            "status": {"error_code": "UNKNOWN" if problem else "OK", "error_message": problem},
        }
        for number, state, problem in service.model_states(*model)
    ]
    return {"model_version_status": states}


def _metadata(service: Service, model: ModelVersion) -> Json:
    with service.versions.using(*model) as version:
        signatures = {
            name: {
                "inputs": {key: _info(f"{name}_{key}:0", one) for key, one in version.inputs[name].items()},
                "outputs": {key: _info(f"{name}_{key}:0", one) for key, one in version.outputs[name].items()},
                "method_name": messages.PREDICT_METHOD,
            }
            for name in version.inputs
        }
        return {
            "model_spec": {"name": service.versions.name, "signature_name": "", "version": str(version.number)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }


def _info(name: str, spec: Any) -> Json:
    sizes = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape.as_list()]
    kind = NAMES[spec.dtype.as_datatype_enum]
    return {"dtype": kind, "tensor_shape": {"dim": sizes, "unknown_rank": False}, "name": name}


def _file(name: str, kind: str) -> Any:
    content = resources.files("maskx_tf.serving").joinpath(name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


async def _serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, no such method."""
    assert isinstance(error, HTTPException)
    where = request.url.path[:200]
    reason = f"nothing at {where}" if error.status_code == 404 else f"{where}: {error.detail} ({request.method})"
    code = HTTP_CODES.get(error.status_code, codes.INVALID_ARGUMENT)
    response = error_response(ServingError(code, reason, error.status_code))
    response.headers.update(error.headers or {})
    return response
