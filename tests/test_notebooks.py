"""Two notebooks run as scripts with small parameters, all of them import what is there; `make notebooks` executes them all."""

import ast
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

NOTEBOOKS = {path.stem: path for path in (Path(__file__).parent.parent / "notebooks").glob("*.py")}
PARAMETERS = re.compile(r'^# %% tags=\["parameters"\]\n((?:\w+ = .+\n)+)', re.M)


def run(name, **parameters):
    """What a notebook's names are in the end, with other values in its cell of parameters."""
    text = NOTEBOOKS[name].read_text()
    given = PARAMETERS.search(text)
    assert set(parameters) == set(re.findall(r"^(\w+) =", given[1], re.M))
    values = "".join(f"{name} = {value}\n" for name, value in parameters.items())
    namespace = {}
    exec(compile(text[: given.start(1)] + values + text[given.end(1) :], f"{name}.py", "exec"), namespace)
    return namespace


def test_the_site_names_every_notebook():
    page = (Path(__file__).parent.parent / "docs" / "notebooks.md").read_text()
    assert set(re.findall(r"\(\.\./notebooks/(\w+)\.py\)", page)) == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_imports_what_is_there(name):
    text = NOTEBOOKS[name].read_text()
    assert text.startswith("# %% [markdown]\n# # ")
    assert len(PARAMETERS.findall(text)) == 1
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = import_module(node.module)
            for imported in node.names:
                assert hasattr(module, imported.name) or import_module(f"{node.module}.{imported.name}")


@pytest.mark.slow
def test_the_tour(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run("tour", transitions=4096)
    printed = capsys.readouterr().out
    assert f"welfare {names['result'].welfare:.2f} of 91.04 that any five policies can reach" in printed
    assert names["someone"].policy.shape == (3,)
    assert f"recommended: k = {names['found'].recommended.k}" in printed
    assert (tmp_path / "runs" / "tour" / "dossier.html").stat().st_size > 10_000


@pytest.mark.slow
def test_inside_the_jitted_step(capsys):
    names = run("jitted_step", iterations=2, seeds=2)
    assert "utility (3, 25) assignment (25,) losses (3,)" in capsys.readouterr().out
    assert set(names["curves"]) == {"plain_em", "epsilon_greedy"}
    for welfare in names["curves"].values():
        assert welfare.shape == (2, 2)
        assert ((np.asarray(welfare) >= 0) & (np.asarray(welfare) <= 100 * names["population"].upper_bound(3))).all()
