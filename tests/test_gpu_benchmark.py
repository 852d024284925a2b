"""The benchmark of a machine with a GPU, as far as a machine without one can run it."""

from __future__ import annotations

import pytest
import tensorflow as tf

from benchmarks import gpu, inference


def test_without_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    assert gpu.main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("no GPU: expected a device that TensorFlow sees")
    assert said.err.count("\n") == 1


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row in each precision, with ratios to the features alone in the same precision."""
    asked = []

    def measured(build, arguments):
        asked.append(build)
        alone = arguments[0] == "features"
        return (9.0, 0.25 if alone else 0.5, 1000.0)

    device = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [device])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {"device_name": "Made up"})
    monkeypatch.setattr(gpu, "measured", measured)
    monkeypatch.setenv("COLUMNS", "150")  # the table is cut at 80
    assert gpu.main() == 0
    said = capsys.readouterr().out
    assert "Made up, TensorFlow" in said
    assert len(asked) == 2 * len(gpu.ROWS)
    assert said.count("fp32") == said.count("bf16") == len(gpu.ROWS)
    assert said.count("1.00") == said.count("250.0") == len(inference.POLICIES)


def test_a_row_measures_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda device: {"peak": 3 * 2**20})
    calls = []
    first, wall, peak = gpu._measured_here(lambda *arguments: lambda: calls.append(arguments), (1, "two"))
    assert calls == [(1, "two")] * (gpu.REPEAT + 1)
    assert peak == 3.0
    assert min(first, wall) >= 0.0
