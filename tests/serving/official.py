"""A server of the official stubs and TensorFlow alone: what our client meets in TF Serving, without our messages."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers as TF Serving does, with values in typed fields or as content.

    Attributes:
        failures: statuses that the next requests get instead of an answer.
        asked: the requests so far.
    """

    def __init__(self, signatures: Any, *, content: bool) -> None:
        self.signatures, self.content = signatures, content
        self.failures: list[grpc.StatusCode] = []
        self.asked: list[Any] = []

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request)
        if self.failures:
            context.abort(self.failures.pop(0), "as told")
        if request.model_spec.name != "pets":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request.model_spec.name}")
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        outputs = self.signatures[request.model_spec.signature_name](**inputs)
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for name, value in outputs.items():
            if name in request.output_filter or not request.output_filter:
                response.outputs[name].CopyFrom(self._message(value))
        return response

    def _message(self, value: tf.Tensor) -> Any:
        array = value.numpy()
        if self.content or array.dtype == object:
            return tf.make_tensor_proto(array)
        message = tf.make_tensor_proto(0, value.dtype, [1])
        message.ClearField("tensor_content")
        field = {tf.float32: "float_val"}.get(value.dtype, "int_val")
        message.ClearField(field)
        getattr(message, field).extend(array.ravel().tolist())
        message.tensor_shape.CopyFrom(value.shape.as_proto())
        return message


class Model(model_service_pb2_grpc.ModelServiceServicer):
    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(version=3, state=30)
        response.model_version_status.add(version=2, state=50)
        return response


@contextmanager
def server(signatures: Any, *, content: bool = True, tls: Any = None) -> Iterator[tuple[str, Prediction]]:
    """An address and what answers there."""
    one = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
    prediction = Prediction(signatures, content=content)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, one)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Model(), one)
    port = one.add_insecure_port("127.0.0.1:0") if tls is None else one.add_secure_port("localhost:0", tls)
    one.start()
    try:
        yield f"{'127.0.0.1' if tls is None else 'localhost'}:{port}", prediction
    finally:
        one.stop(0)
