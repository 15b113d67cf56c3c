import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from tiny import FLAGS

from rmdp_jax import Rates, Sizes
from rmdp_jax.commands.cli import COMMANDS, EnvOptions, main
from rmdp_jax.commands.numbers import read_number
from rmdp_jax.commands.train import Machines

GRID = ["train", "resource_gathering"]
SWEEP = ["sweep", "resource_gathering", "--out", "grid"]
TRAIN = [*GRID, "--size", "2", "--k", "2", "--transitions", "640", "--quiet", *FLAGS]


@pytest.fixture
def no_compilation(monkeypatch, tmp_path):
    """Nothing is jitted, and nothing is left in the folder it was called from."""

    def refuse(*arguments, **options):
        raise AssertionError("something was compiled")

    monkeypatch.setattr("jax.jit", refuse)
    monkeypatch.chdir(tmp_path)
    yield
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl")] == []


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A tiny run, trained by the command line."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    main([*TRAIN, "--out", str(folder)])
    return folder


def refused(arguments, capsys):
    """The one line that a refused command line prints."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err.startswith("rmdp-jax: error: ")
    return err.removeprefix("rmdp-jax: error: ").strip()


@pytest.mark.usefixtures("no_compilation")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "26"], "k = 26: must be at most n = 25, one policy per agent"),
        (["--k", "0"], "k = 0: must be a whole number of at least 1"),
        (["--k", "-1"], "k = -1: must be a whole number of at least 1"),
        (["--n", "24"], "n = 24: resource_gathering has one agent per cell"),
        (["--n", "0"], "n = 0: resource_gathering has one agent per cell"),
        (["--algorithm", "emm"], "algorithm = 'emm' is not known; did you mean 'em'? (known: "),
        (["--minibatches", "7"], "minibatches = 7: must be a divisor of environments * unroll = 2048"),
        (["--minibatches", "0"], "minibatches = 0: must be a whole number of at least 1"),
        (["--environments", "0"], "environments = 0: must be a whole number of at least 1"),
        (["--unroll", "-8"], "unroll = -8: must be a whole number of at least 1"),
        (["--epochs", "0"], "epochs = 0: must be a whole number of at least 1"),
        (["--hidden", "64", "0"], "hidden = (64, 0): must be one or more layers of at least 1 unit"),
        (["--transitions", "0"], "transitions = 0: must be a whole number of at least 1"),
        (["--log-every", "0"], "log_every = 0: must be a whole number of at least 1"),
        (["--evaluation-episodes", "0"], "evaluation_episodes = 0: must be a whole number of at least 1"),
        (["--checkpoint-every", "-1"], "checkpoint_every = -1: must be a whole number from 0 up"),
        (["--seed", "-1"], "seed = -1: must be a whole number from 0 to 2^32 - 1"),
        (["--learning-rate", "nan", "1e-4"], "learning_rate = (nan, 0.0001): must be two numbers from 0 up (start, end)"),
        (["--learning-rate", "1e-4", "-1"], "learning_rate = (0.0001, -1): must be two numbers from 0 up (start, end)"),
        (["--learning-rate", "0", "0"], "learning_rate = (0.0, 0.0): must be above 0 at one end at least, or nothing would be"),
        (["--entropy", "-1", "0"], "entropy = (-1, 0): must be two numbers from 0 up (start, end)"),
        (["--clip", "nan"], "clip = nan: must be a positive number"),
        (["--max-kl", "-0.1"], "max_kl = -0.1: must be a positive number"),
        (["--gae-lambda", "1.5"], "gae_lambda = 1.5: must be a number from 0 to 1"),
        (["--discount", "nan"], "discount = nan: must be a number from 0 to 1"),
        (["--size", "1"], "size = 1: must be a whole number from 2 to 100: a grid needs at least 2 x 2 cells"),
        (["--episode-length", "0"], "episode_length = 0: must be a whole number: a walk out and home takes at least 2 steps"),
        (["--size", "1000000000000"], "size = 1000000000000: must be a whole number from 2 to 100"),
        (["--n", "1e12"], "n = 1000000000000: must be a whole number of at most 16,777,216"),
        (["--seed", "1000000000000"], "seed = 1000000000000: must be a whole number from 0 to 2^32 - 1"),
        (["--transitions", "1e12"], "transitions = 1000000000000: must be at most 100,000,000,000"),
        (["--transitions", "1e-3"], "transitions = 0.001: must be a whole number of at least 1"),
        (["--transitions", "nan"], "transitions = nan: must be a whole number of at least 1"),
        (["--environments", "1000000000000"], "environments = 1000000000000: must be at most 2,147,483,647"),
        (["--environments", "1e9"], "environments = 1000000000: must be at most 2,147,483,647 steps of one policy together"),
        (
            ["--hidden", "64", "1e12"],
            "hidden = (64, 1000000000000): must be one or more layers of at least 1 unit, at most 100",
        ),
        (["--epochs", "1e9"], "epochs = 1000000000: must be at most 1,000"),
        (["--evaluation-episodes", "1e8"], "evaluation_episodes = 100000000: must be at most 1,000,000"),
        (["--episode-length", "1e12"], "episode_length = 1000000000000: must be a whole number: a walk"),
        (["--devices", "1.5"], "devices = 1.5: must be from 1 to 1, the devices that JAX finds"),
        (["--backend", "mjx"], "backend = 'mjx': resource_gathering takes size, episode_length"),
        (["--devices", "0"], "devices = 0: must be from 1 to 1, the devices that JAX finds"),
        (["--devices", "2", "--algorithm", "cluster"], "devices = 2: must be from 1 to 1, the devices that JAX finds"),
        (["--log", "tensorbord"], "log = 'tensorbord' is not known; did you mean 'tensorboard'?"),
        (["--config", "none.json"], "none.json: cannot be read (No such file or directory)"),
        (["--processes", "2"], "processes = 2: must be given together with --distributed"),
        (["--process-id", "0"], "process_id = 0: must be given together with --distributed"),
        (["--distributed", "--coordinator", "here"], "coordinator = here: must be HOST:PORT of the first process"),
        (["--out", "/dev/null/run"], "out = /dev/null/run: cannot be written (Not a directory); choose another folder"),
        (["--out", "/proc/run"], "out = /proc/run: cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_told_in_one_line(arguments, message, capsys):
    assert refused([*GRID, *arguments], capsys).startswith(message)


@pytest.mark.usefixtures("no_compilation")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "resource_gatherin"], "env = 'resource_gatherin' is not known; did you mean 'resource_gathering'? (known: "),
        (["train", "antspeed"], "env = 'antspeed' is not known; did you mean 'ant_speed'? (known: "),
        (["evaluate", "nowhere"], "run = nowhere: holds no config.json, so it is not the folder of a finished run"),
        (["report", "nowhere"], "run = nowhere: holds no config.json, so it is not the folder of a finished run"),
        (["evaluate", "no\nwhere"], r"run = no\nwhere: holds no config.json"),
        (["evaluate", "9" * 5000], f"run = {'9' * 5000}: holds no config.json"),
        (
            ["compare", ".", "--picture", "9" * 300],
            f"picture = {'9' * 76} ...: must be a file with a name of at most 255 bytes",
        ),
        (["compare", "9" * 5000], f"runs = {'9' * 5000}: does not exist"),
        (["evaluate", "nowhere", "--episodes", "0"], "episodes = 0: must be a whole number of at least 1"),
        ([*SWEEP, "--algorithms", "em", "emm"], "algorithm = 'emm' is not known; did you mean 'em'? (known: affinity, "),
        (["sweep", "ant_sped", "--out", "grid"], "env = 'ant_sped' is not known; did you mean 'ant_speed'? (known: "),
        (["sweep", "--out", "grid"], "envs = (): must be one or more"),
        ([*SWEEP, "--devices", "2"], "devices = 2: must be from 1 to 1, the devices that JAX finds"),
        ([*SWEEP, "--seeds", "0"], "seeds = 0: must be a whole number of at least 1"),
        ([*SWEEP, "--seeds", "1000000000000"], "seeds = 1000000000000: must be at most 10,000"),
        (
            [*SWEEP, "--seeds", "2", "--first-seed", "4294967295"],
            "seeds = 2: must be at most 1 from first_seed = 4294967295 on",
        ),
        ([*SWEEP, "--first-seed", "-1"], "first_seed = -1: must be a whole number from 0 to 2^32 - 1"),
        ([*SWEEP, "--entropies", "nan"], "entropy = nan: must be a number from 0 up"),
        ([*SWEEP, "--transitions", "1e12"], "transitions = 1000000000000: must be at most"),
        (["evaluate", "nowhere", "--episodes", "1e12"], "episodes = 1000000000000: must be at most 1,000,000"),
        (["evaluate", "nowhere", "--seed", "1e12"], "seed = 1000000000000: must be a whole number from 0 to 2^32 - 1"),
        (["render", "nowhere", "--seed", "-1"], "seed = -1: must be a whole number from 0 to 2^32 - 1"),
        (["render", "nowhere", "--seconds", "nan"], "seconds = nan: must be a number above 0"),
        (["render", "nowhere", "--policy", "-1"], "policy = -1: must be a whole number from 0 up"),
        (["compare", ".", "--picture", "it.pdf"], "picture = it.pdf: must be a file whose name ends with .png"),
        ([*TRAIN, "--out", ""], "out = '': must be the path of a file or folder"),
        (["compare", "."[:0]], "runs = '': must be the path of a file or folder"),
        (["report", "nowhere", "--pictures", ""], "run = nowhere: holds no config.json"),
        (["compare", ".", "--picture", "."], "picture = .: must be a file, such as welfare.png, and no folder"),
        (
            ["compare", ".", "--picture", "/dev/null/such.png"],
            "picture = /dev/null/such.png: must be in a folder that can be written",
        ),
        ([*SWEEP, "--ks", "2", "26"], "k = 26: must be at most n = 25"),
        ([*SWEEP, "--preset", "quick"], "preset = 'quick' is not known (known: default, gpu, reference)"),
        ([*SWEEP, "--algorithms", "em", "cluster", "--transitions", "9000"], "transitions = 9000: must be above the 16144 "),
        ([*SWEEP, "--size", "7", "--algorithms", "em", "oracle"], "algorithm = 'oracle': this population comes with no groups"),
        (
            ["sweep", "resource_gathering", "--out", "/dev/null/grid"],
            "out = /dev/null/grid/resource_gathering-em-k5-s0: ",
        ),
    ],
)
def test_bad_names_are_told_in_one_line(arguments, message, capsys):
    assert refused(arguments, capsys).startswith(message)


@pytest.mark.usefixtures("no_compilation")
@pytest.mark.parametrize(
    "arguments",
    [[], ["trian"], ["train"], [*GRID, "--k", "two"], [*GRID, "--kk", "2"], [*GRID, "--trunk", "both"], ["evaluate"]],
    ids=" ".join,
)
def test_what_cannot_be_parsed_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err
    assert "Traceback" not in err


def test_a_folder_with_a_run_is_refused(run_dir, capsys, monkeypatch):
    monkeypatch.setattr("jax.jit", None)
    message = refused([*TRAIN, "--out", str(run_dir)], capsys)
    assert message == f"out = {run_dir}: already holds a run; choose another folder, or --resume to go on with it"
    assert refused([*TRAIN, "--out", str(run_dir), "--resume", "--seed", "1"], capsys).startswith("resume: ")
    message = f"preset = gpu: settings are those of the run in {run_dir}; leave it out"
    assert refused(["train", str(run_dir), "--preset", "gpu"], capsys) == message
    assert refused([*TRAIN, "--out", str(run_dir), "--resume", "--preset", "gpu"], capsys) == message


def test_a_folder_of_something_else_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jax.jit", None)
    (tmp_path / "config.json").write_text('{"mine": 1}')
    message = f"out = {tmp_path}: holds a config.json of something else; choose another folder"
    assert refused([*TRAIN, "--out", str(tmp_path)], capsys) == message
    assert (tmp_path / "config.json").read_text() == '{"mine": 1}'


def test_a_run_that_went_on_and_did_not_end_is_refused(run_dir, tmp_path, capsys):
    shutil.copytree(run_dir, tmp_path / "run")
    result = json.loads((run_dir / "result.json").read_text())
    (tmp_path / "run" / "result.json").write_text(json.dumps(result | {"iterations": 1}))
    message = f"out = {tmp_path / 'run'}: its result is of iteration 1, its checkpoint of {result['iterations']}, as it went on"
    assert refused(["evaluate", str(tmp_path / "run")], capsys).startswith(message)


@pytest.mark.parametrize("command", ["evaluate", "report"])
@pytest.mark.parametrize("name", ["result.json", "config.json"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 999}', "has format 999, this version reads 1"),
        ("{}", "has format None, this version reads 1"),
        ("[]", "has format None, this version reads 1"),
        ("half a li", "is not JSON"),
    ],
)
def test_files_of_another_version_are_refused(run_dir, tmp_path, capsys, monkeypatch, command, name, text, message):
    for kept in ("result.json", "config.json"):
        (tmp_path / kept).write_text((run_dir / kept).read_text())
    (tmp_path / name).write_text(text)
    monkeypatch.setattr("jax.jit", None)
    assert refused([command, str(tmp_path)], capsys).startswith(f"{tmp_path / name}: {message}")


def test_train_writes_a_run_and_evaluate_judges_it(run_dir, capsys):
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["k"], result["n"], result["env_options"]["size"], result["iterations"]) == (2, 4, 2, 20)
    assert json.loads((run_dir / "config.json").read_text())["train"]["rates"]["max_kl"] == Rates().max_kl
    assert (run_dir / "checkpoints").is_dir()

    main(["evaluate", str(run_dir), "--episodes", "8", "--seed", "1", "--json"])
    judged = json.loads(capsys.readouterr().out)
    # train judges by 8 episodes of the seed after its own, 0
    assert judged["assignment"] == result["assignment"]
    np.testing.assert_allclose(judged["utility"], result["utility"], atol=1e-3)
    assert judged["welfare"] == pytest.approx(result["welfare"], abs=1e-3)

    main(["evaluate", str(run_dir), "--episodes", "64", "--deterministic"])
    out = capsys.readouterr().out
    assert "64 fresh episodes" in out
    assert max(map(len, out.splitlines())) <= 80


def test_train_ends_with_a_table(tmp_path, capsys):
    main([*TRAIN, "--out", str(tmp_path / "run"), "--algorithm", "random"])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    out = capsys.readouterr().out
    assert f"{result['welfare']:.2f}" in out
    assert "resource_gathering" in out
    assert result["algorithm"] == "random"
    tables = [line for line in out.splitlines() if not line.startswith("picture")]
    assert max(map(len, tables)) <= 80
    pictures = [line.removeprefix("picture").strip() for line in out.splitlines() if line.startswith("picture")]
    assert len(pictures) >= 4
    assert all(os.path.getsize(picture) > 1000 for picture in pictures)


def flags_of(*kinds):
    """Flags of all fields; one that is on by itself is there to be switched off."""
    return {
        f"--{'no-' if field.default is True else ''}{field.name.replace('_', '-')}" for kind in kinds for field in fields(kind)
    }


NO_FLAGS = {
    "--env",
    "--envs",
    "--runs",
    "--run-dir",
    "--agents",
    "--target",
    "--env-options",
    "--machines",
    "--sizes",
    "--rates",
}  # positions, groups
GROUPS = {"train": (Machines, EnvOptions, Sizes, Rates), "sweep": (EnvOptions,), "budget": (EnvOptions,)}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_names_every_flag(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if len(line) > 80] == []
    words = set(out.replace(",", " ").split())
    assert flags_of(COMMANDS[command], *GROUPS.get(command, ())) - NO_FLAGS <= words


def test_help_of_all_commands_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if len(line) > 80] == []
    assert f"{{{','.join(COMMANDS)}}}" in "".join(out.split("\n\n")[0].split())


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_commands_and_flags(shell, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--tyro-print-completion", shell])
    assert stop.value.code in (0, None)
    script = capsys.readouterr().out
    assert all(word in script for word in (*COMMANDS, "--learning-rate", "--ks"))
    assert max(map(len, script.splitlines())) > 200  # as tyro wrote it: a broken line is another script


def test_whole_numbers_may_be_written_with_an_exponent(capsys):
    assert refused([*GRID, "--transitions", "1e3", "--k", "2.6e1"], capsys).startswith("k = 26: must be at most n = 25")
    assert [read_number(text) for text in ("1e6", "1_000", "2.0", "2.5", "two")] == [1_000_000, 1000, 2, 2.5, "two"]
    assert [type(read_number(text)) for text in ("1e6", "2.0", "2.5")] == [int, int, float]
    assert refused([*GRID, "--k", "two"], capsys) == "k = 'two': must be a whole number of at least 1"
    assert refused([*GRID, "--clip", "0.2x"], capsys).startswith("clip = '0.2x': must be a positive number")
    assert refused([*GRID, "--hidden", "64", ""], capsys).startswith("hidden = (64, ''): must be one or more layers")


def test_help_shows_the_defaults_of_the_named_env(capsys):
    shown = {}
    for env in ("resource_gathering", "halfcheetah_speed"):
        with pytest.raises(SystemExit):
            main(["train", env, "--help"])
        shown[env] = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: 0.0005 0.0001)" in shown["resource_gathering"]
    assert "(default: 0.0003 0.0001)" in shown["halfcheetah_speed"]


def test_envs_lists_the_tasks(capsys):
    main(["envs"])
    out = capsys.readouterr().out
    for name in ("resource_gathering", "halfcheetah_speed", "walker2d_speed", "ant_speed", "hopper_speed"):
        assert name in out


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "rmdp_jax", "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}
    )
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout
    bad = subprocess.run([sys.executable, "-m", "rmdp_jax", "train", "ant_sped"], capture_output=True, text=True)
    assert bad.returncode == 2
    assert bad.stderr.splitlines() == [line for line in bad.stderr.splitlines() if "did you mean 'ant_speed'" in line]
    assert len(bad.stderr.splitlines()) == 1
