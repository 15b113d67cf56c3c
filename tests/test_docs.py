"""What the pages under docs/ say: refusals in the words that they print, links to what is there."""

import re
import shlex
from pathlib import Path

import pytest
from test_cli import refused

from rmdp_jax import plain_em, train
from rmdp_jax.envs import make, preset

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_index_names_every_page():
    assert {page.name for page in PAGES} - {"README.md"} <= set(re.findall(r"\]\(([\w.]+\.md)", text_of("README.md")))
