"""The gRPC port: TF Serving's PredictionService and ModelService, gRPC's health service and reflection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from maskx_tf.protocol import messages
from maskx_tf.protocol.tensors import from_proto, to_proto
from maskx_tf.serving.server.arrivals import DIALOGUES, WATCHES, Arrivals, parsed
from maskx_tf.serving.server.batching import Arrays, Task
from maskx_tf.serving.server.budget import Share, size_of
from maskx_tf.serving.server.service import Service, signature_map
from maskx_tf.serving.status import invalid, outcome, quoted, result, too_large

# A server answers a method with a message, given the bytes of another and gRPC's context.
Reply = Callable[[bytes, Any], Any]
# Milliseconds until a connection is ended, and then closed: else unread answers would stay in memory.
AGE, AGE_GRACE = 3_600_000, 600_000
STREAMS_OF_A_CONNECTION = 256
MOST_METADATA = 1000
SMALL_MESSAGE = 2**16  # bytes of a message that asks about the model
SERVICE_NAMES = ("", *messages.SERVICES)  # services with a health status
for _file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):  # for reflection
    messages.POOL.AddSerializedFile(_file.serialized_pb)


class GrpcPort:
    """The services, on a port.

    Args:
        service: the service that answers.
        address: host and port; port 0 for any that is free.
        workers: requests that wait at a time; more are refused.
        credentials: the credentials for encryption; None for none.
    """

    def __init__(self, service: Service, address: str, workers: int, credentials: Any = None) -> None:
        self._service = service
        # One thread, because a message may take twenty times its bytes while it is parsed.
        self._parser = futures.ThreadPoolExecutor(1, "parse")
        self._health = _Health()
        options = [
            ("grpc.max_send_message_length", service.limits.max_bytes),
            ("grpc.max_receive_message_length", service.limits.max_bytes),
            ("grpc.max_concurrent_streams", STREAMS_OF_A_CONNECTION),
            ("grpc.http2.bdp_probe", 0),  # else the port would accept megabytes of messages that are not read yet
            ("grpc.max_connection_age_ms", AGE),
            ("grpc.max_connection_age_grace_ms", AGE_GRACE),
            ("grpc.so_reuseport", 0),  # two servers on the same port are a mistake
        ]
        threads = workers + DIALOGUES + WATCHES
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, "grpc"),
            options=options,
            interceptors=[Arrivals(service.budget)],
            maximum_concurrent_rpcs=threads,
        )
        refused = {name: self._refuse(name) for name in ("Classify", "Regress", "MultiInference")}
        services: dict[str, dict[str, Reply]] = {
            messages.PREDICTION: {"Predict": self._predict, "GetModelMetadata": self._metadata, **refused},
            messages.MODEL: {"GetModelStatus": self._status},
        }
        for name, answers in services.items():
            methods = {
                method: grpc.unary_unary_rpc_method_handler(answer, response_serializer=_serialized)
                for method, answer in answers.items()
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [*messages.SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server, messages.POOL)
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()

    def say_ready(self) -> None:
        """Tells the clients of the health service that requests are answered from now on."""
        for name in SERVICE_NAMES:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, seconds: float) -> threading.Event:
        """Refuses new requests; the event is set when the others are answered, or the seconds are over."""
        self._health.enter_graceful_shutdown()
        ended: threading.Event = self._server.stop(seconds)
        return ended

    def _predict(self, data: bytes, context: grpc.ServicerContext) -> Any:
        spec, signature, inputs, outputs = result(self._parser.submit(outcome, self._read, data).result())

        def on_task(task: Task) -> None:
            if not context.add_callback(task.cancel):  # the client has disconnected
                task.cancel()

        with Share(self._service.budget) as share:
            share.set(sum(size_of(array) for array in inputs.values()))
            number, found = self._service.predict(
                "grpc",
                spec,
                signature,
                inputs,
                outputs,
                seconds=context.time_remaining(),
                on_task=on_task,
            )
            response = messages.PredictResponse()
            response.model_spec.CopyFrom(self._answered(number, signature))
            for name, value in found.items():
                response.outputs[name].CopyFrom(to_proto(value))
        return response

    def _read(self, data: bytes) -> tuple[tuple[str, int | None], str, Arrays, list[str]]:
        """Model and version, signature, inputs and names of outputs of a request."""
        entries = parsed(messages.PredictEntries.FromString, data)
        if max(len(entries.inputs), len(entries.output_filter)) > MOST_METADATA:
            raise invalid(f"more than {MOST_METADATA} inputs or names of outputs")
        del entries
        request = parsed(messages.PredictRequest.FromString, data)
        try:
            most = self._service.limits.max_bytes
            inputs = {name: from_proto(message, most) for name, message in request.inputs.items()}
        except (ValueError, OverflowError) as error:
            raise invalid(str(error)) from None
        spec = request.model_spec
        return _spec(spec), spec.signature_name, inputs, list(request.output_filter)

    def _metadata(self, data: bytes, context: grpc.ServicerContext) -> Any:
        request = _parse_small(messages.GetModelMetadataRequest, data)
        if list(request.metadata_field) != [messages.SIGNATURE_DEF]:
            reason = f"expected the metadata_field {messages.SIGNATURE_DEF!r} and no other"
            raise invalid(reason)
        with self._service.versions.using(*_spec(request.model_spec)) as version:
            response = messages.GetModelMetadataResponse(model_spec=self._answered(version.number, ""))
            entry = response.metadata[messages.SIGNATURE_DEF]
            entry.type_url = messages.SIGNATURES_URL
            entry.value = signature_map(version).SerializeToString()
        return response

    def _status(self, data: bytes, context: grpc.ServicerContext) -> Any:
        request = _parse_small(messages.GetModelStatusRequest, data)
        response = messages.GetModelStatusResponse()
        for number, state, problem in self._service.model_states(*_spec(request.model_spec)):
            one = response.model_version_status.add(version=number, state=state)
            one.status.error_message = problem
            one.status.error_code = int(bool(problem)) * grpc.StatusCode.UNKNOWN.value[0]
        return response

    def _refuse(self, method: str) -> Reply:
        def refuse(data: bytes, context: grpc.ServicerContext) -> Any:
            reason = f"the model has no signatures for {method}: use Predict"
            raise invalid(reason)

        return refuse

    def _answered(self, number: int, signature: str) -> Any:
        spec = messages.ModelSpec(name=self._service.versions.name, signature_name=signature)
        spec.version.value = number
        return spec


class _Health(health.HealthServicer):
    """gRPC's health service, which would keep every name that someone watches."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=False)
        for name in SERVICE_NAMES:
            self.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    def Watch(self, request: Any, context: grpc.ServicerContext, send_response_callback: Any = None) -> Any:  # noqa: N802
        if request.service not in SERVICE_NAMES:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return super().Watch(request, context, send_response_callback)


def _spec(spec: Any) -> tuple[str, int | None]:
    if spec.version_label:
        reason = f"no version label {quoted(spec.version_label)}: this server has none, TF Serving has"
        raise invalid(reason)
    return spec.name, spec.version.value if spec.HasField("version") else None


def _serialized(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


def _parse_small(kind: Any, data: bytes) -> Any:
    if len(data) > SMALL_MESSAGE:
        raise too_large(f"a message of {len(data)} bytes, expected at most {SMALL_MESSAGE}")
    return parsed(kind.FromString, data)
