"""The gRPC port: TF Serving's PredictionService and ModelService, and gRPC's health service."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from maskx_tf.protocol import messages
from maskx_tf.protocol.tensors import from_proto, to_proto
from maskx_tf.serving import status as codes
from maskx_tf.serving.server.service import Service, signature_map
from maskx_tf.serving.status import ServingError

SERVING = health_pb2.HealthCheckResponse.SERVING
Handler = Callable[[bytes, Any], Any]


class GrpcPort:
    """The services, on a port.

    Args:
        service: that answers.
        address: host and port; port 0 for any that is free.
        workers: requests that are looked at or wait at a time; more are refused.
        max_bytes: of a message, either way.
        credentials: for encryption; None for none.
    """

    def __init__(self, service: Service, address: str, workers: int, max_bytes: int, credentials: Any = None) -> None:
        self._service = service
        options = [
            ("grpc.max_send_message_length", max_bytes),
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake
        ]
        self._server = grpc.server(
            futures.ThreadPoolExecutor(workers, "grpc"), options=options, maximum_concurrent_rpcs=workers
        )
        refused = {name: self._refuse(name) for name in ("Classify", "Regress", "MultiInference")}
        services: dict[str, dict[str, Handler]] = {
            messages.PREDICTION: {"Predict": self._predict, "GetModelMetadata": self._metadata, **refused},
            messages.MODEL: {"GetModelStatus": self._status},
        }
        for name, handlers in services.items():
            methods = {method: grpc.unary_unary_rpc_method_handler(_safe(one)) for method, one in handlers.items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        self._health = health.HealthServicer()
        self._health.set("", SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()

    def stop(self, seconds: float) -> None:
        """Refuses new requests and returns when those that were accepted are answered, or the seconds are over."""
        self._health.enter_graceful_shutdown()
        self._server.stop(seconds).wait()

    def _predict(self, data: bytes, context: Any) -> Any:
        request = _parse(messages.PredictRequest, data)
        try:
            inputs = {name: from_proto(message) for name, message in request.inputs.items()}
        except (ValueError, OverflowError) as error:
            raise ServingError(codes.INVALID_ARGUMENT, str(error)) from None
        number, outputs = self._service.predict(
            "grpc",
            _spec(request.model_spec),
            request.model_spec.signature_name,
            inputs,
            request.output_filter,
            seconds=context.time_remaining(),
            on_task=lambda task: context.add_callback(task.result.cancel),
        )
        response = messages.PredictResponse()
        response.model_spec.CopyFrom(self._answered(number, request.model_spec.signature_name))
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(to_proto(value))
        return response

    def _metadata(self, data: bytes, context: Any) -> Any:
        request = _parse(messages.GetModelMetadataRequest, data)
        if list(request.metadata_field) != [messages.SIGNATURE_DEF]:
            reason = f"metadata_field is {list(request.metadata_field)}, expected ['{messages.SIGNATURE_DEF}']"
            raise ServingError(codes.INVALID_ARGUMENT, reason)
        with self._service.versions.using(*_spec(request.model_spec)) as version:
            response = messages.GetModelMetadataResponse(model_spec=self._answered(version.number, ""))
            entry = response.metadata[messages.SIGNATURE_DEF]
            entry.type_url = messages.SIGNATURES_URL
            entry.value = signature_map(version).SerializeToString()
        return response

    def _status(self, data: bytes, context: Any) -> Any:
        request = _parse(messages.GetModelStatusRequest, data)
        response = messages.GetModelStatusResponse()
        for number, state, problem in model_states(self._service, *_spec(request.model_spec)):
            one = response.model_version_status.add(version=number, state=state)
            one.status.error_message = problem
            one.status.error_code = int(bool(problem)) * grpc.StatusCode.UNKNOWN.value[0]
        return response

    def _refuse(self, method: str) -> Handler:
        def refuse(data: bytes, context: Any) -> Any:
            reason = f"the model has no signatures for {method}: use Predict"
            raise ServingError(codes.INVALID_ARGUMENT, reason)

        return refuse

    def _answered(self, number: int, signature: str) -> Any:
        spec = messages.ModelSpec(name=self._service.versions.name, signature_name=signature)
        spec.version.value = number
        return spec


def is_ready(service: Service) -> bool:
    """Whether a version is loaded."""
    return any(state == messages.AVAILABLE for state, _ in service.versions.states().values())


def model_states(service: Service, name: str, number: int | None) -> list[tuple[int, int, str]]:
    """Number, state and problem of each version, the newest first, or of the one that is asked for.

    Raises:
        ServingError: there is no such model or version.
    """
    if name not in ("", service.versions.name):
        raise ServingError(codes.NOT_FOUND, f"no model of the name {name!r}, expected {service.versions.name!r}")
    states = service.versions.states()
    if number is not None and number not in states:
        raise ServingError(codes.NOT_FOUND, f"no version {number} of {service.versions.name!r}")
    chosen = sorted(states if number is None else [number], reverse=True)
    return [(one, *states[one]) for one in chosen]


def _spec(spec: Any) -> tuple[str, int | None]:
    if spec.version_label:
        reason = f"no version label {spec.version_label!r}: this server has none, TF Serving has"
        raise ServingError(codes.INVALID_ARGUMENT, reason)
    return spec.name, spec.version.value if spec.HasField("version") else None


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except Exception:  # protocol buffers' own class of error, which moved between versions
        raise ServingError(codes.INVALID_ARGUMENT, f"the message is no {kind.DESCRIPTOR.name}") from None


def _safe(handler: Handler) -> Callable[[bytes, Any], bytes]:
    """The handler, whose refusals become statuses."""

    def handle(data: bytes, context: Any) -> bytes:
        try:
            answer: bytes = handler(data, context).SerializeToString()
            return answer
        except ServingError as error:
            context.abort(grpc.StatusCode[error.code], error.reason)
            raise AssertionError("abort raises") from None

    return handle
