"""A task of a user's own by name, ``my_env.py:make`` or ``package.module:make``: the page about it, and what is refused."""

import inspect
import json
import re
import shutil
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path

import jax
import numpy as np
import pytest
from test_cli import refused
from tiny import FLAGS

from rmdp_jax import ConfigError, Rates, TrainConfig
from rmdp_jax.checks import check_env
from rmdp_jax.commands.cli import _parse, main
from rmdp_jax.envs import make, options_of, own, preset
from rmdp_jax.paths import folder_name
from rmdp_jax.records.loading import load_run
from rmdp_jax.running.cells import run_folder

PAGE = (Path(__file__).parent.parent / "docs" / "your_own_env.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
NEEDS = {"gymnax": "gymnax", "jumanji": "jumanji", "mujoco_playground": "mujoco_playground"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with my_env.py of the page."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "my_env.py").write_text(BLOCKS[0])
    return folder


@pytest.fixture
def here(project, monkeypatch):
    """The project as the present folder, and nothing imported from it yet."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(project))])
    for name in ("my_env", "other"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return project


@pytest.fixture(scope="module")
def run_dir(project):
    """runs/line of the page, for a few transitions."""
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(StringIO()) as stderr:
        patch.chdir(project)
        line = next(line for line in PAGE.splitlines() if line.strip().startswith("rmdp-jax train")).split("#")[0].split()[1:]
        main([*line, "--transitions", "640", "--algorithm", "plain_em", *FLAGS])
    (project / "stderr").write_text(stderr.getvalue())
    return project / "runs" / "line"


def test_the_folder_of_a_run_is_enough_to_evaluate_it_anywhere(run_dir, tmp_path, monkeypatch, capsys):
    described = json.loads((run_dir / "config.json").read_text())
    assert (described["env"], described["make"]) == ("line", f"{run_dir.parent.parent / 'my_env.py'}:make")
    assert described["env_options"] == {"seed": 0, "goal": 5, "n": 6}
    monkeypatch.chdir(tmp_path)
    main(["evaluate", str(run_dir), "--episodes", "4", "--json"])
    evaluated = json.loads(capsys.readouterr().out)
    assert np.shape(evaluated["utility"]) == (2, 6)
    run = load_run(run_dir)
    assert run.env.spec.episode_length == 15
    np.testing.assert_allclose(run.population.agents, make(described["make"], seed=0, goal=5)[1].agents)
    main(["report", str(run_dir), "--pictures", str(tmp_path)])
    assert (tmp_path / "welfare.png").exists()


def test_settings_and_where_they_come_from_are_told(run_dir, here, capsys):
    printed = (here / "stderr").read_text()
    assert "settings are TrainConfig's own, tuned for no task; a TrainConfig `preset` in my_env.py is taken" in printed
    assert "pay comes late" not in printed
    line = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])
    assert np.shape(line["mean_place"]) == (2,)  # dict outcomes are columns by their names
    assert [name for name in line if name.startswith("mean")] == ["mean_place"]
    (here / "other.py").write_text(
        BLOCKS[0] + "\nfrom rmdp_jax import ConfigError, Rates, TrainConfig\npreset = TrainConfig(rates=Rates(clip=0.1))"
    )
    assert preset("other:make", k=3).rates == Rates(clip=0.1)
    assert preset("my_env:make") == TrainConfig()
    with pytest.raises(SystemExit):
        main(["train", "other:make", "--help"])
    shown = capsys.readouterr().out
    assert re.search(r"--goal", shown)
    assert "Of other:make; default 4." in " ".join(shown.replace("│", " ").split())
    assert "(default: 0.1)" in shown


def test_a_run_goes_on_by_its_folder_or_by_its_function_and_not_by_another(run_dir, here, capsys):
    for name in (str(run_dir), "./my_env.py:make", "my_env:make"):
        found = _parse(["train", name, "--out", str(run_dir), "--resume"])
        assert (found.resume, found.env_options.given(), found.k, found.algorithm) == (True, {"goal": 5}, 2, "plain_em")
        assert found.task()[0].spec.make == f"{here / 'my_env.py'}:make"
    (here / "other.py").write_text(BLOCKS[0])
    words = refused(["train", "other:make", "--out", str(run_dir), "--resume"], capsys)
    assert words.startswith(f"resume: env ({here / 'my_env.py'}:make there, other:make here) differs from the run in {run_dir}")


def test_names(here):
    (here / "pack").mkdir(exist_ok=True)
    (here / "pack" / "tasks.py").write_text(BLOCKS[0].replace("def make(", "def line("))
    env, population = make("pack.tasks:line", n=3, goal=2)
    assert (env.spec.make, dict(env.spec.options), population.n) == ("pack.tasks:line", {"seed": 0, "goal": 2, "n": 3}, 3)
    assert make("my_env:make")[0].spec.make == make("./my_env.py:make")[0].spec.make == f"{here / 'my_env.py'}:make"
    assert options_of("my_env:make") == ["goal"]
    names = ("a.b_c:make", "a.b:other", "/x/my_env.py:make", "resource_gathering")
    assert [folder_name(name) for name in names] == ["b_c", "b-other", "my_env", "resource_gathering"]
    assert make("my_env:make", context=True)[0].for_agent is not None
    assert dict(make("my_env:make")[0].spec.options) == {"seed": 0, "goal": 4, "n": 6}  # with the default, which may change
    with pytest.raises(ConfigError, match=r"^goal = \[1 2\]: must be numbers, words, flags, or lists of them"):
        make("my_env:make", goal=np.array([1, 2]))


def test_sweeps_and_ladders_take_it_with_its_flags(here):
    grid = _parse(["sweep", "./my_env.py:make", "--goal", "3", "--ks", "1", "2", "--out", "grid"])
    cells = grid.cells()
    assert [(cell.config.k, cell.config.n, cell.env_options) for cell in cells] == [(k, 6, {"goal": 3}) for k in (1, 2)]
    assert run_folder("grid", cells[1], 2, 0).name == "my_env-goal3-em-k2-s0"
    assert run_folder("grid", replace(cells[0], env_options={"file": "../../x" * 90}), 1, 0).parent == Path("grid")
    ladder = _parse(["budget", "my_env:make", "--goal", "3"])
    assert (ladder.target, ladder.env_options.given()) == ("my_env:make", {"goal": 3})


def test_all_that_a_preset_says_is_the_default_of_train(here):
    preset = "TrainConfig(k=3, welfare_p=0, at_most=(4,), evaluation_steps=7, max_fault_share=1, seed=5)"
    (here / "offers.py").write_text(f"{BLOCKS[0]}\nfrom rmdp_jax import TrainConfig\npreset = {preset}\n")
    _, population, config = _parse(["train", "offers:make", "--evaluation-steps", "9"]).task()
    assert (config.k, config.welfare_p, config.at_most, config.max_fault_share) == (3, 0.0, (4.0,), 1.0)
    assert (config.evaluation_steps, config.n, config.seed) == (9, population.n, 0)
    cells = _parse(["sweep", "offers:make", "--ks", "3", "--out", "grid"]).cells()
    assert replace(cells[0].config, seed=0, evaluation_steps=9) == config


def test_what_makes_a_run_again_has_no_argument_but_those_that_are_refused():
    named = {name for name, of in inspect.signature(make).parameters.items() if of.kind is not of.VAR_KEYWORD}
    assert named == {*own.GIVEN, *own._OURS}


def test_an_argument_named_as_one_of_a_built_in_task_is_its_own(here):
    (here / "sized.py").write_text(BLOCKS[0].replace("goal", "model"))
    assert _parse(["train", "sized:make", "--model", "3"]).env_options.given() == {"model": 3}


def test_lists_and_tuples_are_to_the_function_what_its_default_is(here):
    block = BLOCKS[0].replace("goal: int = 4)", "goal: int = 4, grid=(2, 2), walls=[], other=None)")
    block = block.replace("    steps = 3", "    heard.append((grid, walls, other))\n    steps = 3")
    (here / "lists.py").write_text("heard = []\n" + block)
    for grid in ((4, 4), [4, 4]):
        env, _ = make("lists:make", grid=grid, walls=grid, other=grid)
        assert env.spec.options["grid"] == [4, 4]
    assert sys.modules["lists"].heard == [((4, 4), [4, 4], (4, 4))] * 2


BAD = """
import rmdp_jax
from os import system
nothing = 3
def needs(depth): ...
def gives(n=2): return 1, 2
def raises(): raise OSError("no such disk")
def wide(transitions=3): ...
def windy(windy: bool = False, label: str = "a"): ...
def named(n=2, name="ant"): ...
preset = 3
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere:make", "env = 'nowhere:make': there is no module nowhere; start from the folder that holds it, put that on"),
        ("./nowhere.py:make", "env = './nowhere.py': there is no such file; give the path of a Python file"),
        ("my_env:mak", "env = 'my_env:mak': my_env has no mak (it has make); write def mak(n=..., seed=0) in it"),
        ("my_env:jnp", "env = 'my_env:jnp': jnp is a module, must be a function that returns (Env, Population)"),
        ("my_env:make --n 0", "n = 0: must be a whole number of at least 1"),
        ("my_env:make --goal five", "goal = 'five': must be a whole number, as my_env:make has it"),
        ("my_env:make --size 3", "size = 3: my_env:make takes n, seed, goal"),
        ("my_env:make --preset reference", "preset = 'reference' is not known (known: default)"),
        ("my_env:make --k 7", "k = 7: must be at most n = 6"),
        ("os:system", "env = 'os:system': the module of this function does not mention rmdp_jax, so it makes no task"),
        ("bad:gives", "preset of bad = 3: must be a TrainConfig"),
        ("worse:nothing", "env = 'worse:nothing': nothing is a int, must be a function"),
        ("worse:system", "env = 'worse:system': the module of this function does not mention rmdp_jax"),
        ("worse:needs", "depth: worse:needs has no default for it; give --depth, or write one into the function"),
        ("worse:gives", "env = 'worse:gives': returns (int, int), must be (Env, Population)"),
        ("worse:raises", "env = 'worse:raises': raised OSError (no such disk)"),
        ("worse:gives --k 3 --n 3 --backend x", "backend = 'x': worse:gives takes n"),
        ("worse:named", "name: is an argument of rmdp_jax.envs.make, and cannot be one of worse:named too; rename it there"),
        ("worse:wide", "transitions: worse:wide has an argument of this name, but --transitions is a flag of its own"),
        ("broken:make", "env = 'broken:make': importing it raised SyntaxError"),
        ("lacks:make", "env = 'lacks:make': importing it failed: No module named 'not_there_at_all'; install that"),
    ],
)
def test_what_is_no_task_is_told_in_one_line(here, capsys, arguments, message):
    (here / "bad.py").write_text(BAD)
    (here / "worse.py").write_text(BAD.replace("preset = 3", ""))
    (here / "broken.py").write_text("def make(")
    (here / "lacks.py").write_text("import not_there_at_all")
    assert refused(["train", *arguments.split()], capsys).startswith(message)


@pytest.mark.parametrize("where", ["link.py:make", "/proc/self/cwd/my_env.py:make"])
def test_a_folder_cannot_name_a_file_that_depends_on_the_present_folder(run_dir, here, tmp_path, where, capsys):
    shutil.copytree(run_dir, tmp_path / "run")
    described = json.loads((run_dir / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(described | {"make": where}))
    message = f"{tmp_path / 'run' / 'config.json'}: make = {where!r}: must be module:function, or /the/full/path.py:function"
    assert refused(["evaluate", str(tmp_path / "run")], capsys).startswith(message)


def test_a_folder_whose_code_is_gone_says_how_to_read_it_all_the_same(run_dir, tmp_path, capsys):
    shutil.copytree(run_dir, tmp_path / "run")
    described = json.loads((run_dir / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(described | {"make": "gone_task:make"}))
    words = refused(["evaluate", str(tmp_path / "run")], capsys)
    assert words.endswith("bring back what makes it, or give load_run(folder, make) in Python")
    run = load_run(tmp_path / "run", lambda name, **options: make(described["make"], **options))
    assert run.config.k == 2


@pytest.mark.parametrize("block", BLOCKS[1:], ids=lambda block: re.search(r"from_\w+|weighted_\w+", block)[0])
def test_each_block_of_the_page_makes_a_task(here, block):
    for module, package in NEEDS.items():
        if module in block:
            pytest.importorskip(package)
    (here / "other.py").write_text(block)
    sys.path.insert(0, str(here))
    env, population = make("./other.py:make")
    check_env(env._replace(spec=env.spec._replace(probe=False)), population)
    assert jax.eval_shape(env.reset, jax.random.key(0))[1].shape == (env.spec.observation_size,)
