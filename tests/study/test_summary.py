"""Statistics against numbers computed by hand, and tables of artificial results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from maskx_tf import cli
from maskx_tf.study import cells, config, results, statistics, summary, tables
from maskx_tf.study.config import StudyConfig
from tests.study import small


def test_spread_by_hand() -> None:
    found = statistics.spread([10.0, 14.0, 12.0])
    assert found is not None
    # Squared distances 4 + 4 + 0, by two: 4. t with two degrees of freedom is 4.303; 4.303 * 2 / sqrt 3.
    assert found == pytest.approx((3, 12.0, 2.0, 4.96868))
    assert statistics.spread([]) is None
    one = statistics.spread([5.0])
    assert one is not None
    assert one[:2] == (1, 5.0)
    assert math.isnan(one.deviation)
    assert math.isnan(one.half)


def test_differences_are_taken_within_groups() -> None:
    values, others = {"a": 5.0, "b": 9.0, "c": 1.0}, {"a": 2.0, "b": 4.0, "d": 100.0}
    found = statistics.paired(values, others)
    assert found is not None
    # 3 and 5: mean 4, deviation sqrt 2, half of the interval 12.706 * sqrt 2 / sqrt 2.
    assert found == pytest.approx((2, 4.0, math.sqrt(2), 12.706))
    assert statistics.gain(values, others) == pytest.approx(14 / 6 - 1)
    assert statistics.gain(values, {"d": 1.0}) is None
    assert statistics.paired(values, {}) is None


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (9, 2.262), (30, 2.042), (40, 2.021), (120, 1.980)])
def test_quantiles_are_those_of_printed_tables(freedom: int, quantile: float) -> None:
    assert statistics.t_quantile(freedom) == pytest.approx(quantile, abs=1e-3)


# Mask AP on B and A of the test part, and on B of the validation part.
FIGURES = {
    ("seed0", "plain"): (0.10, 0.30, 0.50),
    ("seed1", "plain"): (0.14, 0.32, 0.50),
    ("seed0", "two"): (0.20, 0.31, 0.20),
    ("seed1", "two"): (0.26, 0.33, 0.20),
    ("seed0", "three"): (0.15, 0.30, 0.25),
    ("seed1", "three"): (0.17, 0.30, 0.25),
    ("seed0", "oracle"): (0.40, 0.35, 0.40),
    ("seed0-a20", "plain"): (0.18, 0.30, 0.10),
    ("seed0-a20", "two"): (0.30, 0.30, 0.10),
}


def _fill(study: StudyConfig, out: Path) -> None:
    for cell in cells.cells_of(study):
        found = FIGURES.get((cell.group.name, cell.method.name))
        if found is None:
            continue
        b, a, val = found
        figures = {"val": {"mask/B/AP": val}, "test": {"mask/B/AP": b, "mask/A/AP": a, "box/all/AP": 0.5}}
        line = {"group": cell.group.name, "method": cell.method.name, "figures": figures}
        size = 20 if cell.group.a else 17
        out.mkdir(exist_ok=True)
        digest = cells.digest(study, cell, cells.Places(out))
        results.add(out / results.RESULTS, {**line, "digest": digest, "a": size})


def test_a_table_of_made_up_results(tmp_path: Path) -> None:
    study = small.load(tmp_path)
    _fill(study, tmp_path / "out")
    found = summary.summarise(study, tmp_path / "out")
    assert (found.finished, found.planned, found.other) == (9, 10, 0)
    plain, best, oracle = found.tables[0].entries
    assert plain.b is not None
    assert plain.b.mean == pytest.approx(12.0)
    assert plain.more_b is None
    # Chosen by the validation part, although the other one is better on the test part.
    assert best.method == "three"
    assert best.title == "chosen: three"
    assert best.more_b is not None
    assert best.more_b.mean == pytest.approx(4.0)
    assert best.gain_b == pytest.approx(16 / 12 - 1)
    # The oracle ran for one seed: it is compared with the baseline of that seed.
    assert oracle.missing == 1
    assert oracle.more_b is not None
    assert oracle.more_b.mean == pytest.approx(30.0)
    text = tables.as_markdown(found)
    cells_of_row = [cell.strip() for cell in next(row for row in text.split("\n") if "chosen" in row).split("|")[1:-1]]
    assert cells_of_row[:5] == ["chosen: three", "2", "16.0 ± 1.4", "30.0 ± 0.0", "+4.0 [-8.7, +16.7]"]
    assert cells_of_row[6:] == ["+33 %", "-", "-", "-", "-"]
    assert "| 1 of 2 |" in next(row for row in text.split("\n") if row.startswith("| oracle"))
    assert "| 14.2 | 34.4 |" in " ".join(text.split()).replace("  ", " ")
    assert [" ".join(row.split()) for row in text.split("\n")][-2:] == [
        "| three | 15.0 / 30.0 / 50.0 | 17.0 / 30.0 / 50.0 | - |",
        "| oracle | 40.0 / 35.0 / 50.0 | - | - |",
    ]


def test_the_figure_has_a_table_for_each_size_of_a(tmp_path: Path) -> None:
    study = small.load(tmp_path)
    _fill(study, tmp_path / "out")
    found = summary.summarise(study, tmp_path / "out")
    of_figure = [table for table in found.tables if table.name == "figure 3"]
    assert [(table.title, table.groups) for table in of_figure] == [
        ("size: 17 classes in A", ("seed0", "seed1")),
        ("size: 20 classes in A", ("seed0-a20",)),
    ]
    tables.write(found, tmp_path / "out")
    page = (tmp_path / "out" / "figure_3.html").read_text(encoding="utf-8")
    # One method: its means, +11 and +12, as a line, and a dot for each of the three groups.
    assert page.count("<polyline") == 1
    assert page.count("<circle") == 3
    assert "mask AP on B, minus plain" in page
    assert "classes in A" in page
    assert "http" not in page


def test_a_figure_draws_more_methods_than_there_are_colours(tmp_path: Path) -> None:
    many = 1 + len(summary.METHOD_COLOURS)
    study = small.load(tmp_path, figures=[{"title": "size", "baseline": "plain", "methods": ["two"] * many}])
    _fill(study, tmp_path / "out")
    assert summary.summarise(study, tmp_path / "out").charts["3"].count("<polyline") == many


def test_a_figure_of_some_groups(tmp_path: Path) -> None:
    figure = {"title": "size", "baseline": "plain", "methods": ["two"], "groups": ["seed1", "seed0-a20"]}
    study = small.load(tmp_path, figures=[figure])
    _fill(study, tmp_path / "out")
    of_figure = summary.summarise(study, tmp_path / "out").tables[1:]
    assert [table.groups for table in of_figure] == [("seed1",), ("seed0-a20",)]


def test_results_of_other_settings_are_counted(tmp_path: Path) -> None:
    study = small.load(tmp_path)
    _fill(study, tmp_path / "out")
    changed = small.load(tmp_path, mask_settings={"train": {"steps": 6}})
    found = summary.summarise(changed, tmp_path / "out")
    assert found.other == 9
    assert "9 of them with other settings" in tables.as_markdown(found)


def test_the_command_summarises(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    study = small.load(tmp_path)
    out = tmp_path / "out"
    _fill(study, out)
    arguments = ["study", str(tmp_path / "study.yaml"), "--out", str(out), "--summarize"]
    assert cli.run(arguments) == 0
    assert capsys.readouterr().out == (out / "summary.md").read_text(encoding="utf-8")
    assert cli.run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # NaN and the like are not JSON
    assert found["tables"][0]["entries"][2]["b"]["deviation"] is None
    assert found["cells"][0] == {"method": "plain", "group": "seed0", "b": 10.0, "a": 30.0, "boxes": 50.0}
    assert found["tables"][0]["entries"][1]["b"]["mean"] == pytest.approx(16.0)
    assert cli.run(["study", str(tmp_path / "study.yaml"), "method=[]"]) == 2


@pytest.mark.parametrize("name", ["synthetic", "ccp"])
def test_shipped_tables_come_out_of_the_shipped_lines(name: str) -> None:
    folder = small.ROOT / "docs" / "results" / name
    study = config.load(small.ROOT / "configs" / "study" / f"{name}.yaml")
    made = summary.summarise(study, folder)
    assert made.finished
    assert made.other == 0
    assert (folder / "summary.md").read_text(encoding="utf-8") == tables.as_markdown(made) + "\n"
