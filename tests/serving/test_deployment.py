"""The files for deployment: the official messages can read them, and they agree with each other."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

pytest.importorskip("tensorflow_serving.config", reason="the extra dev is missing")
from tensorflow.core.protobuf import config_pb2 as session_pb2
from tensorflow.core.protobuf import rewriter_config_pb2
from tensorflow_serving.config import model_server_config_pb2

from maskx_tf.protocol.messages import MESSAGES, PREDICTION, SERVICES
from maskx_tf.serving.server.batching import read_parameters
from serving import load_test
from tests.export.exported import encoded, picture
from tests.serving.running import shared

FOLDER = Path(__file__).resolve().parents[2] / "serving"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
KUBERNETES = {one["kind"]: one for one in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())}
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["maskx"]
# Flags of tensorflow_model_server, from its source (model_servers/main.cc).
FLAGS = {
    "port",
    "rest_api_port",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "allow_version_labels_for_unavailable_models",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "enable_model_warmup",
    "enable_serialization_as_tensor_content",
    "grpc_max_threads",
    "grpc_channel_arguments",
}


def entry_point() -> dict[str, str]:
    text = re.search(r"ENTRYPOINT (\[.*?\])", DOCKERFILE, re.S)
    assert text is not None
    program, *flags = json.loads(text[1].replace("\\\n", ""))
    assert program == "/usr/bin/tensorflow_model_server"
    return dict(flag.removeprefix("--").split("=", 1) for flag in flags)


def test_models_and_labels() -> None:
    parsed = text_format.Parse((FOLDER / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("maskx", "/models/maskx", "tensorflow")
    versions = set(model.model_version_policy.specific.versions)
    assert set(model.version_labels.values()) <= versions
    assert "stable" in model.version_labels


def test_batching() -> None:
    parameters = read_parameters(FOLDER / "batching.txt")
    assert parameters.together
    assert parameters.allowed_batch_sizes[-1] == parameters.max_batch_size


def test_session() -> None:
    parsed = text_format.Parse((FOLDER / "session_bf16.config").read_text(), session_pb2.ConfigProto())
    rewrites = parsed.graph_options.rewrite_options
    assert rewrites.auto_mixed_precision_onednn_bfloat16 == rewriter_config_pb2.RewriterConfig.ON


def monitoring_message() -> Any:
    """tensorflow_serving/config/monitoring_config.proto, of which the package has no stubs."""
    file = descriptor_pb2.FileDescriptorProto(name="monitoring.proto", package="test", syntax="proto3")
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=8, label=1)
    prometheus.field.add(name="path", number=2, type=9, label=1)
    monitoring = file.message_type.add(name="MonitoringConfig")
    monitoring.field.add(name="prometheus_config", number=1, type=11, label=1, type_name=".test.PrometheusConfig")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.MonitoringConfig"))()


def test_monitoring_is_where_it_is_scraped() -> None:
    parsed = text_format.Parse((FOLDER / "monitoring.config").read_text(), monitoring_message())
    assert parsed.prometheus_config.enable
    notes = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/path"] == parsed.prometheus_config.path
    assert notes["prometheus.io/port"] == entry_point()["rest_api_port"]


def test_image() -> None:
    flags = entry_point()
    assert set(flags) == FLAGS
    copied = re.search(r"^COPY (.*)$", DOCKERFILE, re.M)
    assert copied is not None
    *files, place = shlex.split(copied[1])
    for name in files:
        assert (FOLDER / name).is_file()
    for key, value in flags.items():
        if key.endswith("_file"):
            assert value.removeprefix(place) in files
    assert "grpc.max_receive_message_length=67108864" in flags["grpc_channel_arguments"]


def test_compose() -> None:
    ports = {port.split(":")[-1] for port in COMPOSE["ports"]}
    assert ports == {entry_point()["port"], entry_point()["rest_api_port"]}
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["ports"])
    for volume in COMPOSE["volumes"]:
        source, target, mode = volume.split(":")
        assert mode == "ro"
        assert source == "./models" or (FOLDER / source).is_file()
        assert target.startswith(("/models", "/etc/maskx/"))
    assert COMPOSE["deploy"]["resources"]["limits"]["memory"]


def test_kubernetes() -> None:
    deployment = KUBERNETES["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert ports == {"grpc": entry_point()["port"], "rest": entry_point()["rest_api_port"]}
    assert container["readinessProbe"]["httpGet"]["path"] == "/v1/models/maskx/labels/stable"
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    assert KUBERNETES["Service"]["spec"]["selector"] == deployment["selector"]["matchLabels"]
    scaler = KUBERNETES["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == KUBERNETES["Deployment"]["metadata"]["name"]
    assert scaler["minReplicas"] == deployment["replicas"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"models": "/models", "config": "/etc/maskx"}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    assert pod["terminationGracePeriodSeconds"] > 10


def test_load_test() -> None:
    place = shared()
    figures = load_test.run(place.grpc, [encoded(picture(50, 90))], rate=20, seconds=1.0)
    assert figures["ok"] == figures["asked"] == 20
    assert figures["p50"] <= figures["p95"] <= figures["p99"]
    crowded = load_test.run(place.rest, [encoded(picture(50, 90))], rate=2000, seconds=0.05, in_flight=1)
    assert crowded["not sent"] + crowded["ok"] == 100
    assert crowded["not sent"] > 0
    with pytest.raises(SystemExit, match="of this machine"):
        load_test.run("example.org:8500", [b""], rate=1, seconds=1)
    assert load_test.example()[:2] == b"\xff\xd8"


def test_the_proto_of_other_languages_has_the_numbers_of_ours() -> None:
    """Ours are compared with the official ones in tests/protocol."""
    text = re.sub(r"//.*", "", (FOLDER / "prediction_service.proto").read_text())
    declared = re.findall(r"message (\w+) \{([^}]*)\}", text)
    assert [name for name, _ in declared].count("PredictRequest") == 1
    for name, fields in declared:
        lines = re.findall(r"(?:map<string, (\w+)>|(repeated )?(\w+)) (\w+) = (\d+);", fields)
        assert len(lines) == fields.count(";")
        for entry, repeated, kind, field, number in lines:
            kind = f"map {entry}" if entry else f"{'*' * bool(repeated)}{kind}"
            assert MESSAGES[name][field] == (int(number), kind), f"{name}.{field}"
    assert re.findall(r"rpc (\w+)\((\w+)\) returns \((\w+)\)", text) == [("Predict", *SERVICES[PREDICTION]["Predict"])]
    assert f"package {PREDICTION.rpartition('.')[0]};" in text
