"""What the pages under docs/ say: refusals in the words that they print, links and names of what is there, code that runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
from test_cli import refused

import rmdp_jax
from rmdp_jax import envs, plain_em, train
from rmdp_jax.envs import ENVS, make, preset
from rmdp_jax.envs.resource_gathering import optimum

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))
API = sorted(DOCS.glob("api/*.md"))
ROW = r"^\| `(.+?)` \| `(.+)` \|$"


def text_of(name):
    return (DOCS / name).read_text()


def refusals():
    """Command lines of bad_input.md, each with what it says there."""
    for section in re.split(r"^## ", text_of("bad_input.md"), flags=re.M)[1:]:
        command = re.search(r"^\| `rmdp-jax (\w+)` \| error \|$", section, re.M)[1]
        yield from ((f"{command} {arguments}", line) for arguments, line in re.findall(ROW, section, re.M))


TABLES = [(content, line) for content, line in re.findall(ROW, text_of("new_people.md"), re.M) if line.startswith("new.csv: ")]
REFUSALS = list(refusals())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """runs/first of the pages after one iteration, which its refusals do not look at; new.csv and notes."""
    folder = tmp_path_factory.mktemp("docs")
    config = preset("resource_gathering", k=3, transitions=1, evaluation_episodes=2)
    task = make("resource_gathering", n=25, seed=0)
    train(*task, config, plain_em(3, 25), out=folder / "runs" / "first", progress=False)
    (folder / "new.csv").write_text(re.search(r"```\n(id,cell,group\n(?:\w+,\d+,\w+\n)+)```", text_of("new_people.md"))[1])
    (folder / "notes").mkdir()
    return folder


def test_all_rows_are_read():
    assert len(TABLES) == text_of("new_people.md").count("| `new.csv: ")
    assert len(REFUSALS) == len(re.findall(r"^\| `", text_of("bad_input.md"), re.M)) - text_of("bad_input.md").count("|---|")


@pytest.mark.parametrize(("command", "line"), REFUSALS, ids=[command for command, _ in REFUSALS])
def test_a_refusal_has_the_words_of_the_page(folder, capsys, monkeypatch, command, line):
    monkeypatch.chdir(folder)
    assert refused(shlex.split(command), capsys) == line
    assert not any(folder.glob("runs/second/*"))  # an empty folder is left at most


@pytest.mark.parametrize(("content", "line"), TABLES, ids=[content for content, _ in TABLES])
def test_a_table_is_refused_in_the_words_of_the_page(folder, tmp_path, capsys, monkeypatch, content, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.csv").write_text(content.replace(" / ", "\n") + "\n")
    assert refused(["assign", str(folder / "runs" / "first"), "new.csv"], capsys) == line


@pytest.mark.parametrize("page", PAGES + API, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_index_names_every_page():
    named = set(re.findall(r"\]\(([\w.]+\.md)", text_of("README.md")))
    assert {page.name for page in PAGES} - named == {"README.md", "index.md"}  # the index here, and that of the site


def test_sections_that_the_site_includes_are_there():
    includes = [(page, match) for page in PAGES for match in re.findall(r"^<!-- include -->(.*)$", page.read_text(), re.M)]
    assert includes
    for page, line in includes:
        title, path, anchor = re.fullmatch(r"\[(.+)\]\((.+\.md)#(.+)\)", line).groups()
        assert re.search(rf"^#+ {re.escape(title)}$", (page.parent / path).read_text(), re.M), title
        assert anchor == re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_the_api_pages_have_all_public_names():
    documented = [name for page in API for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)]
    assert {*rmdp_jax.__all__, *envs.__all__} - {"ENVS", "describe_envs", "options_of"} <= {
        name.rpartition(".")[2] for name in documented
    }
    for name in documented:
        resolve_name(name)


# Whose blocks are the README's again (test_readme.py), or files by themselves (test_own_env.py)
RUN_ELSEWHERE = {"notebook.md", "your_own_env.md"}
WITH_PYTHON = [page for page in PAGES if "```python" in page.read_text() and page.name not in RUN_ELSEWHERE]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(folder, monkeypatch, page):
    monkeypatch.chdir(folder)
    exec("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S)), {})


@pytest.mark.slow
def test_the_table_of_tasks_is_true():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d) .+ \| (\d+) \| ([\d.]+) \| (\d+),", text_of("tasks.md"), re.M)
    assert [name for name, *_ in rows] == list(ENVS)
    for name, *numbers in rows:
        env, population = make(name, seed=0)
        spec = env.spec
        assert list(map(float, numbers)) == [
            *(spec.observation_size, spec.action_size, spec.episode_length, spec.discount, population.n)
        ]
    for k, welfare in ((1, 74.00), (2, 86.00), (3, 89.28), (5, 91.04), (10, 92.32), (25, 93.56)):
        assert f"{welfare:.2f} ({'k = ' if k == 1 else ''}{k})" in text_of("tasks.md")
        assert optimum(k)["welfare"] == pytest.approx(welfare / 100)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="make install brings it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=DOCS.parent, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "<math" in (tmp_path / "algorithms.html").read_text()
    fields = (tmp_path / "api" / "tasks.html").read_text()
    assert "the true successor, also at the end of an episode" in fields  # the comment beside Step.obs
    for page in tmp_path.rglob("*.html"):  # nothing is fetched from elsewhere
        assert not re.search(r'<(script|link|img)[^>]+(src|href)="?(https?:)?//', page.read_text()), page


def test_no_docstring_has_an_example_that_nothing_runs():
    for path in Path(rmdp_jax.__file__).parent.rglob("*.py"):
        assert ">>>" not in path.read_text(), path
