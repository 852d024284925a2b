"""What the report draws: charts and maps."""

from __future__ import annotations

import re

import numpy as np
import pytest

from maskx_tf.report import embeddings, svg
from tests.report.html import Page


def test_chart_of_lines() -> None:
    nan = float("nan")
    line = svg.Line("a<b", [0, 1, 2, 3, 4], [1, 2, nan, 5, nan], "#123456", dashed=True)
    drawn = svg.chart([line, svg.Line("all", range(5000), range(5000), "red")], title="t", x_label="x", y_label="y")
    Page(drawn)
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 1  # a point alone
    assert "a&lt;b" in drawn
    assert "NaN" not in drawn
    assert "nan" not in drawn
    assert max(len(places.split()) for places in re.findall(r'points="([^"]*)"', drawn)) <= svg.MOST_DOTS + 1
    numbers = [float(number) for number in re.findall(r"(?<=points=\")[\d.]+", drawn)]
    assert all(svg.LEFT <= number <= svg.WIDTH for number in numbers)
    assert svg.chart([svg.Line("a", [1], [nan], "red")], title="t", x_label="x", y_label="y") == ""
    for value in (0.0, -3.0, 1e6):  # a flat line has a range, too
        Page(svg.chart([svg.Line("a", [1, 1], [value, value], "red")], title="t", x_label="x", y_label="y"))


def test_map_of_points() -> None:
    rng = np.random.default_rng(0)
    points = [svg.Point(f"class {n}", *rng.normal(size=2).tolist(), "red", hollow=bool(n % 2)) for n in range(40)]
    drawn = svg.scatter([*points, *points], title="t", x_label="x", y_label="y")
    Page(drawn)
    assert drawn.count("<circle") == 80
    assert 10 < drawn.count('font-size="10"') < 80  # those that found room
    assert svg.scatter([], title="t", x_label="x", y_label="y") == ""
    Page(svg.scatter(points[:1], title="t", x_label="x", y_label="y"))


def test_principal_components() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=[30, 2]) * [5, 2]
    turned = plane @ np.linalg.qr(rng.normal(size=[7, 7]))[0][:2] + 3.0
    places, share = embeddings.principal(turned)
    assert share == pytest.approx(1.0)
    centred = plane - plane.mean(axis=0)
    np.testing.assert_allclose(places @ places.T, centred @ centred.T, atol=1e-9)
    assert np.var(places[:, 0]) > np.var(places[:, 1])
    same, share = embeddings.principal(np.ones([4, 3]))
    assert (share, np.abs(same).max()) == (0.0, 0.0)
