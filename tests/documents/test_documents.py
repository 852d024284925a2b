"""Names in the documents exist: files, headings, commands, options, settings, names in the code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from maskx_tf import cli
from maskx_tf.config import Config, explain
from maskx_tf.config.text import parse_yaml
from maskx_tf.synthetic import generate
from maskx_tf.synthetic.parameters import Recipe
from tests.documents import commands, markdown, names

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [path for pattern in ("*.md", "docs/**/*.md", "examples/*.ipynb") for path in sorted(ROOT.glob(pattern))]
SHELL = ("", "sh", "bash", "console")


def problems(path: Path, root: Path) -> list[str]:
    """One line for each thing in a document that is not as it says."""
    found = [*markdown.dead_links(path, root)]
    prose, blocks = markdown.split(markdown.read(path))
    for number, line in prose:
        found += [(number, problem) for span in markdown.spans(line) for problem in of_span(span, path, root)]
    for block in blocks:
        found += [(block.line + line, problem) for line, problem in of_block(block, root)]
    return [f"{path.relative_to(root)}:{number}: {problem}" for number, problem in sorted(found)]


def of_span(span: str, path: Path, root: Path) -> Iterator[str]:
    """What is wrong with something in backticks."""
    if span.startswith(("maskx ", "python -m ", "scripts/", "pip ")):
        for words in commands.sentences(span):
            problem = commands.wrong(words, root, mention=True)
            if problem:
                yield problem
    elif " " not in span or span.startswith("--"):
        problem = names.wrong(span, path, root)
        if problem:
            yield problem


def of_block(block: markdown.Code, root: Path) -> Iterator[tuple[int, str]]:
    """What is wrong in a block of code, by lines from 0."""
    if block.language in SHELL:
        for line, words in commands.of(block.text):
            problem = commands.wrong(words, root, mention=False)
            if problem:
                yield line, problem
    elif block.language == "python":
        yield from ((0, problem) for problem in names.missing_imports(block.text, root))
    elif block.language == "yaml":
        first = block.text.partition("\n")[0]
        for recipe in sorted(root.glob("configs/*.yaml")):
            text = recipe.read_text(encoding="utf-8")
            if first.startswith("#") and text.startswith(first + "\n") and text.strip() != block.text.strip():
                yield 0, f"it is not what {recipe.relative_to(root)} says"
        settings = parse_yaml(block.text)
        if isinstance(settings, dict) and set(settings) & set(Config.model_fields):
            yield from ((0, f"there is no setting {key}") for key in keys(settings) if key not in explain.valid_keys())


def keys(settings: dict[str, object], above: str = "") -> Iterator[str]:
    """The dotted keys of nested settings, those inside lists left out."""
    for key, value in settings.items():
        if above or key != "base":
            yield above + key
        if isinstance(value, dict):
            yield from keys(value, f"{above}{key}.")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_speaks_of_what_there_is(path: Path) -> None:
    assert problems(path, ROOT) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/*.yaml")), ids=lambda path: path.name)
def test_recipe_names_a_command_that_runs(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        before, _, command = line.partition("maskx ")
        if before.startswith("#"):
            (words,) = commands.sentences("maskx " + command.split(", ")[0])
            assert commands.wrong(words, ROOT, mention=True) is None


def test_training_on_kubernetes_names_what_there_is() -> None:
    text = (ROOT / "scripts/train-on-kubernetes.yaml").read_text(encoding="utf-8")
    service, job = (one["spec"] for one in yaml.safe_load_all(text))
    container = job["template"]["spec"]["containers"][0]
    machines = {one["name"]: one["value"] for one in container["env"]}["MACHINES"]
    assert job["completions"] == job["parallelism"] == int(machines)
    (port,) = (one["containerPort"] for one in container["ports"])
    assert service["ports"][0]["port"] == port
    script = container["args"][0].replace("$JOB_COMPLETION_INDEX", "0")
    assert f":{port}" in script
    (words,) = (words for _, words in commands.of(script[script.index("exec maskx") :]))
    assert commands.wrong(words, ROOT, mention=False) == "there is no configs/YOUR_RECIPE.yaml"  # and nothing else


LIGHT = ("config", "data split")  # what needs no data and no model
ON_DATA = ("data check", "data stats", "data show")


def documented(names: tuple[str, ...]) -> list[list[str]]:
    """The commands of these names in the documents, each once, whose words hold no stand-in for another."""
    found = {}
    for path in DOCUMENTS:
        for block in markdown.split(markdown.read(path))[1]:
            for _, words in commands.of(block.text):
                if " ".join(words[1:]).startswith(names) and "..." not in words:
                    found[" ".join(words)] = words[1:]
    return list(found.values())


def is_there(words: list[str], root: Path) -> bool:
    """Whether what a command reads is in a folder."""
    read = [words[place + 1] for place, word in enumerate(words) if word in ("--images", "--annotations", "--masks-b")]
    recipes = [word for word in words if word.endswith(".yaml")]
    return all((root / name).exists() for name in read + recipes)


@pytest.mark.parametrize("words", [words for words in documented(LIGHT) if is_there(words, ROOT)], ids=" ".join)
def test_light_commands_run(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.run(words) == 0
    assert capsys.readouterr().out


def test_commands_on_data_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a few synthetic scenes, which also stand where the documents speak of photographs."""
    monkeypatch.chdir(tmp_path)
    generate.generate(Recipe(images=20, size=64, classes=24, a=17), tmp_path / "data" / "synthetic", workers=1)
    Path("photos").symlink_to("data/synthetic/train")
    Path("instances.json").symlink_to("data/synthetic/instances_train.json")
    runs = [words for words in documented(ON_DATA) if is_there(words, tmp_path)]
    assert {" ".join(words[:2]) for words in runs} == set(ON_DATA)
    for words in runs:
        assert cli.run(words) == 0, (words, capsys.readouterr().err)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with little in it."""
    for file in ("maskx_tf/training/fit.py", "benchmarks/ops.py", "scripts/test", "configs/a.yaml", "docs/b.md"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "maskx_tf/training/fit.py").write_text("def run():\n    pass\n", encoding="utf-8")
    (tmp_path / "configs/a.yaml").write_text("# A recipe.\ntrain: {steps: 5}\n", encoding="utf-8")
    (tmp_path / "docs/b.md").write_text("# All of it\n\n## `train.rate`, and more\n", encoding="utf-8")
    (tmp_path / "scripts/test").write_text("case --slow)", encoding="utf-8")
    (tmp_path / "setup.cfg").write_text("[options.extras_require]\ndev = pytest\n", encoding="utf-8")
    return tmp_path


RIGHT = """# Title
[b](docs/b.md), [a heading](docs/b.md#trainrate-and-more), [up](#title), [there](https://example.org/x), ![](docs/b.md)
`maskx train`, `maskx train configs/a.yaml train.rate=1e-3 --dry-run`, `--resume`, `--slow`, `train.rate`, `runs/first`,
`train.warm_up.*`, `maskx_tf/training/fit.py`, `training/fit.py`, `configs/*.yaml`, `training.fit.run`, `model.fit`,
`maskx_tf.training.fit`, `python -m benchmarks.ops`, `pip install 'maskx_tf[dev]'`, `maskx eval runs/a ... --faster`

```
maskx train configs/a.yaml train.rate=0.1 \\
    'model.input.canvas=[64, 64]' --out runs/a   # it's a comment
cd somewhere && scripts/test -k anchors; python -m benchmarks.ops
[not a link](nowhere.md)
maskx vocabulary imported drop "hair drier" toaster --out fewer
```

```python
from maskx_tf.training import fit
from maskx_tf.training.fit import run
```

```yaml
# A recipe.
train: {steps: 5}
```

```yaml
base: a.yaml
train: {rate: 0.1}
```
"""


def test_a_correct_page_has_no_problems(project: Path) -> None:
    (project / "README.md").write_text(RIGHT, encoding="utf-8")
    assert problems(project / "README.md", project) == []


def test_notebooks_are_read(project: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "`maskx trian` and [b](docs/b.md)"]},
        {
            "cell_type": "code",
            "source": ["from maskx_tf.training.fit import run\n", "from maskx_tf.training import fti"],
        },
    ]
    (project / "one.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    first, second = problems(project / "one.ipynb", project)
    assert "No such command 'trian'" in first
    assert "there is no maskx_tf.training.fti" in second


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[b](docs/c.md)", "the link docs/c.md leads nowhere"),
        ("![b](docs/c.png)", "the link docs/c.png leads nowhere"),
        ("[b](docs/b.md#nothing)", "the link docs/b.md#nothing leads to a heading that is not there"),
        ("[b](../x.md)", "the link ../x.md leads nowhere"),
        ("[b]: docs/c.md", "the link docs/c.md leads nowhere"),
        ("`maskx trian configs/a.yaml`", "No such command 'trian'"),
        ("```\nmaskx train configs/a.yaml --resum\n```", "No such option: --resum"),
        ("```\nmaskx export saved-model runs/a\n```", "Missing option '--out'"),
        ("```\nmaskx ask localhost:8500 a.png --score 7\n```", "Invalid value for '--score'"),
        ("```sh\nmaskx train configs/b.yaml\n```", "there is no configs/b.yaml"),
        ("```\nmaskx train synthetic_maskx\n```", "there is no recipe synthetic_maskx"),
        ("```\nmaskx train configs/a.yaml train.rat=1\n```", "override 'train.rat=1': train.rat: unknown key"),
        ("```\nmaskx train configs/a.yaml train.steps=none\n```", "expected a whole number, found 'none'"),
        ("```\nmaskx train mine.yaml train.rat=1\n```", "there is no setting train.rat"),
        ("```\nmaskx data synth --out a \\\n  --color 3\n```", "No such option: --color"),
        ("```\nmaskx vocabulary imported dorp toaster --out fewer\n```", "No such command 'dorp'"),
        ("```\nmaskx train mine.yaml train.rat=$rate\n```", "there is no setting train.rat"),
        ("`mask_rcnn_r5_fpn_*_coco`", "there is no recipe mask_rcnn_r5_fpn_*_coco"),
        ("`--resum`", "no command has the option --resum"),
        ("`scripts/tset`", "there is no scripts/tset"),
        ("```\nscripts/tset -x\n```", "there is no scripts/tset"),
        ("`python -m benchmarks.opps`", "there is no module benchmarks.opps"),
        ("```\npip install -e '.[devv]'\n```", "there is no extra devv"),
        ("```\npython benchmarks/opps.py\n```", "there is no benchmarks/opps.py"),
        ("```\npython benchmarks/ops.py --fast\n```", "benchmarks/ops.py has no option --fast"),
        ("```yaml\n# A recipe.\ntrain: {steps: 6}\n```", "it is not what configs/a.yaml says"),
        ("`maskx_tf/training/fti.py`", "there is no maskx_tf/training/fti.py"),
        ("`training/fti.py`", "there is no training/fti.py"),
        ("`training.fit.walk`", "there is neither a setting nor a thing called training.fit.walk"),
        ("`train.rat`", "there is neither a setting nor a thing called train.rat"),
        ("```python\nfrom maskx_tf.training.fit import walk\n```", "there is no maskx_tf.training.fit.walk"),
        ("```python\nfrom maskx_tf.trainin import fit\n```", "there is no maskx_tf.trainin.fit"),
        ("```python\nfor\n```", "it is no Python"),
        ("```yaml\ntrain:\n  rat: 1\n```", "there is no setting train.rat"),
    ],
)
def test_a_stale_page_has_a_problem(text: str, problem: str, project: Path) -> None:
    (project / "README.md").write_text(f"# Title\n{text}\n", encoding="utf-8")
    (found,) = problems(project / "README.md", project)
    assert found.startswith("README.md:")
    assert problem in found
