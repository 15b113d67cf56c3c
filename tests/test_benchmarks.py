import importlib
import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.accelerator import QUICK_WAVES, WAVES, Row, measure_wave, show_tables
from benchmarks.common import on_cores
from benchmarks.processes import ALGORITHMS, ITERATIONS, across_policies, groups_of, task
from benchmarks.throughput import Throughput, cases, resolve
from rmdp_jax.running.algorithms import resolve as resolve_algorithm
from rmdp_jax.running.interrupts import Stopped

COMMANDS = {
    "resource_gathering": [sys.executable, "-m", "benchmarks.resource_gathering", "--quick"],
    "throughput": [sys.executable, "-m", "benchmarks.throughput", "--quick", "--k", "2", "4", "--total-environments", "16"],
    "scaling_n": [sys.executable, "-m", "benchmarks.scaling_n", "--quick", "--env", "resource_gathering", "--k", "2"],
    "vs_brax": [sys.executable, "-m", "benchmarks.vs_brax", "--quick", "--env", "hopper"],
    "reachable": [sys.executable, "-m", "benchmarks.reachable", "--quick"],
    "assign": [sys.executable, "-m", "benchmarks.assign", "--quick"],
    "startup": [sys.executable, "-m", "benchmarks.startup", "--quick"],
    "compiling": [sys.executable, "-m", "benchmarks.compiling", "--quick"],
    "repeated": [sys.executable, "-m", "benchmarks.repeated", "--quick"],
    "faults": [sys.executable, "-m", "benchmarks.faults", "--quick", "--only", "states", "checkpoints"],
    "accelerator": ["env", f"PYTHON={sys.executable}", "benchmarks/accelerator.sh", "--quick"],
}


@pytest.fixture
def lines(request):
    """JSON lines of a benchmark's stdout, and what it says to people on stderr."""
    done = subprocess.run(COMMANDS[request.param], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["resource_gathering"], indirect=True)
def test_resource_gathering_prints_welfare_next_to_the_optimum(lines):
    (line,), table = lines
    assert line["k"] == 2
    assert line["optimum"] == 86.0
    assert len(line["welfare"]) == 2
    assert sum(line["welfare"]) / 2 == pytest.approx(line["welfare_mean"], abs=1e-3)
    assert "proved best" in table


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["throughput"], indirect=True)
def test_throughput_splits_the_time_and_compares_k(lines):
    (two, four), _ = lines
    assert [(line["k"], line["environments"]) for line in (two, four)] == [(2, 8), (4, 4)]
    assert four["ratio_to_first"] == pytest.approx(four["transitions_per_s"] / two["transitions_per_s"], abs=1e-3)
    for line in (two, four):
        rates = [line[f"{name}_per_s"] for name in ("physics_only", "acting_only", "transitions", "matmul_gflop")]
        assert min(rates) > 0  # how they compare is for idle machines and full sizes
        shares = [line[f"share_{part}"] for part in ("physics", "acting", "update", "assignment")]
        assert sum(shares) == pytest.approx(1, abs=1e-3)
        assert line["matmul_precision"] == "default"
        assert line["versions"]["jax"]


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["faults"], indirect=True)
def test_faults_are_survived(lines):
    rows, table = lines
    assert {row["kind"] for row in rows} == {"states", "checkpoints"}
    for row in rows:
        assert row["tried"] == row["survived"] > 0, row
        assert row["silent"] == 0
    assert "What breaks, and what is left" in table


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["reachable"], indirect=True)
def test_reachable_speeds_are_measured_and_left_below_the_proved_bound(lines):
    (line,), table = lines
    assert (line["env"], line["targets"]) == ("walker2d_speed", [0.625, 1.875])
    assert len(line["own_pay"]) == 2
    assert all(0.0 <= pay <= 100.0 for pay in line["own_pay"])
    rows = [row.split() for row in table.splitlines() if row.strip().startswith("walker2d_speed")]
    assert [row[1] for row in rows] == ["1", "2", "5", "10"]
    for row in rows:
        assert 0.0 <= float(row[3]) <= float(row[2])


def test_throughput_refuses_environments_that_do_not_divide():
    with pytest.raises(SystemExit, match="total_environments = 16: must be a multiple of k = 3"):
        cases(Throughput(k=(2, 3), total_environments=16))


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["scaling_n"], indirect=True)
def test_scaling_n_compares_with_the_first(lines):
    (few, many), _ = lines
    assert (few["n"], many["n"]) == (100, 300)
    assert few["iteration_s_ratio"] == 1
    assert many["iteration_s_ratio"] == pytest.approx(many["iteration_s"] / few["iteration_s"], rel=1e-2)
    assert 0.1 < many["peak_memory_gib"] < 4  # its own, not that of the tests


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["assign"], indirect=True)
def test_assign_times_new_agents_and_limits(lines):
    rows, table = lines
    assert [(row["agents"], row["episodes"], row["steps"]) for row in rows] == [(100, 64, 40), (300, 64, 40)]
    for row in rows:
        assert row["assign_s"] > 0
        assert row["limited_mean"] <= row["mean"] + 1e-3
    assert "new agents" in table


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["vs_brax"], indirect=True)
def test_vs_brax_does_the_same_work(lines):
    (ours, one, in_turn), _ = lines
    assert ours["transitions"] == one["transitions"] == in_turn["transitions"] == 2 * 2 * 4 * 8  # loops, k, E, T
    for line in (one, in_turn):
        ratio = ours["transitions_per_s"] / line["transitions_per_s"]
        assert line["ours_per_its_transitions_per_s"] == pytest.approx(ratio, rel=1e-2)
        assert line["its_per_our_wall_s"] == pytest.approx(line["wall_s"] / ours["wall_s"], rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["startup"], indirect=True)
def test_a_second_start_takes_programs_from_the_cache(lines):
    (first, second), _ = lines
    assert first["cache_files"] == second["cache_files"] > 0
    assert second["compile_s"] < first["compile_s"]
    assert second["first_iteration_s"] == pytest.approx(second["imports_s"] + second["beyond_imports_s"], abs=0.02)


def test_what_devices_tell_each_other_is_read_off_either_way_of_writing():
    assert groups_of("all-reduce(%a), replica_groups={{0,2},{1,3}}, to_apply=%add") == [[0, 2], [1, 3]]
    assert groups_of("all-gather(%a), replica_groups=[2,2]<=[4], dimensions={0}") == [[0, 1], [2, 3]]
    assert groups_of("all-gather(%a), replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}") == [[0, 2], [1, 3]]
    assert groups_of("all-gather(%a), replica_groups=mesh['a'=2,'b'=1,'c'=2] {'a'}, dimensions={0}") == [[0, 2], [1, 3]]
    assert groups_of("all-gather(%a), replica_groups=mesh['a'=2,'b'=2] {'a','b'}, dimensions={0}") == [[0, 1, 2, 3]]
    assert groups_of("collective-permute(%a), source_target_pairs={{0,1},{1,0}}") == [[0, 1], [1, 0]]
    inside = '  %a = f32[2]{0} all-reduce(%b), replica_groups=[2,2]<=[4], metadata={op_name="jit(step)/m_step/sum"}'
    across = inside.replace("<=[4]", "<=[2,2]T(1,0)").replace("m_step/sum", "e_step/div")
    assert across_policies(f"{inside}\n{across}\n  %c = f32[2]{{0}} add(%a, %b)", envs=2) == ["jit(step)/e_step/div f32[2]"]


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["compiling"], indirect=True)
def test_compiling_tells_programs_apart(lines):
    parts, table = lines
    iterations, first, trained, by_mode = parts
    assert [line["part"] for line in parts] == [
        "iterations, fixed groups",
        "first state, fixed groups",
        "evaluation, as trained",
        "evaluation, by mode",
    ]
    for line in parts:
        assert min(line["operations"], line["instructions"], line["kernels"]) > 0
    assert iterations["instructions"] > max(first["instructions"], trained["instructions"])
    assert by_mode["operations"] < trained["operations"]  # which draws noise
    assert "the first compile" in table


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["repeated"], indirect=True)
def test_repeated_calls_keep_no_more_programs(lines):
    calls, table = lines
    assert [line["call"] for line in calls] == [1, 2, 3, 4]
    assert len({(line["executables"], line["kept_programs"]) for line in calls[1:]}) == 1
    assert "cleared" in table


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_algorithms_train_as_long_in_two_processes(algorithm):
    _, population, config = task(algorithm)
    assert resolve_algorithm(algorithm, population, config).config.iterations == ITERATIONS


def test_a_row_that_is_late_is_stopped_and_one_that_breaks_says_why():
    (broken,) = measure_wave([Row("broken", ["benchmarks.nosuch"])], time.monotonic() + 60, "highest")
    assert "No module named benchmarks.nosuch" in broken["failed"]
    (late,) = measure_wave([Row("late", ["http.server", "0"])], time.monotonic() + 1, "highest")
    assert late["skipped"] == "the time was up"


@pytest.mark.parametrize("row", [row for wave in (*WAVES, *QUICK_WAVES) for row in wave], ids=lambda row: " ".join(row.flags))
def test_rows_of_an_accelerator_are_commands_as_their_scripts_take_them(row, monkeypatch):
    script, *flags = row.flags
    module = importlib.import_module(script)
    read = module.read_arguments

    def stop(kind, description):
        raise Read(read(kind, description))

    monkeypatch.setattr(module, "read_arguments", stop)
    monkeypatch.setattr(sys, "argv", [script, *flags])
    with pytest.raises(Read) as raised:
        module.main()
    (arguments,) = raised.value.args
    if script == "benchmarks.throughput" and arguments.backend is None:
        assert all(resolve(arguments, case) for case in cases(arguments))


@pytest.mark.parametrize("row", [row for wave in (*WAVES, *QUICK_WAVES) for row in wave], ids=lambda row: " ".join(row.flags))
def test_a_row_that_never_says_that_it_is_ready_is_not_waited_for(row):
    assert row.takes_turns == (row.flags[0] in ("benchmarks.physics", "benchmarks.throughput"))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system places no processes")
def test_calls_have_a_core_each():
    cores = list(on_cores(os.sched_getaffinity, [(0,)] * 3, 2))
    assert [len(of_one) for of_one in cores] == [1, 1, 1]
    assert set.union(*cores) <= os.sched_getaffinity(0)


def test_a_signal_ends_the_calls_too():
    def interrupt():
        while not active_children():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    begun = time.monotonic()
    Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Stopped, match="SIGTERM"):
        list(on_cores(time.sleep, [(300,)] * 3, 2))
    assert time.monotonic() - begun < 100
    assert not active_children()


class Read(Exception):
    """What a script was asked for."""


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        ("accelerator", ["--first", "4"], "first = 4: must be 1 to 3"),
        ("accelerator", ["--only", "traning"], "only = 'traning' is not known"),
        ("memory", ["--target", "H100"], "target = 'H100' is not known"),
        ("memory", ["--algorithm", "cluster"], "algorithm = 'cluster' is not known"),
        ("resume", ["--iterations", "30"], "iterations = 30: must be a multiple of 4 of at least 4"),
        ("lowering", ["--write", "--envs", "hopper_speed"], "write = True: must be with all envs and algorithms"),
    ],
)
def test_words_that_would_measure_something_else_are_refused(module, words, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [module, *words])
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"benchmarks.{module}").main()
    assert message in capsys.readouterr().err + str(stop.value)


def test_rows_of_an_accelerator_end_with_it(monkeypatch):
    started, start = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **options: started.append(start(*words, **options)) or started[-1])
    lines = measure_wave(
        [Row("broken", ["benchmarks.nosuch"]), Row("on", ["http.server", "0"])], time.monotonic() + 60, "highest"
    )
    assert "failed" in next(lines)
    lines.close()  # as Ctrl-C does
    assert started[1].wait(10) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["accelerator"], indirect=True)
def test_accelerator_measures_and_trains(lines):
    rows, table = lines
    by_name = {row["what"]: row for row in rows}
    assert set(by_name) == {"training", "physics", "exactness", "resume", "not there"}
    assert by_name["training"]["transitions_per_s"] > 0
    assert by_name["training"]["peak_memory_gib"] > 0
    assert by_name["training"]["matmul_precision"] == "highest"
    assert by_name["physics"]["finite"]
    assert by_name["physics"]["physics_only_per_s"] > 0
    assert by_name["exactness"]["difference_100"] == 0.0  # native against native
    assert by_name["resume"]["bit_for_bit"]
    assert by_name["resume"]["arrays"] > 10
    assert by_name["not there"]["skipped"] == "nosuch is not installed"
    assert max(map(len, table.splitlines())) <= 80


def test_kept_lines_of_an_accelerator_are_shown_within_80_columns(capsys):
    kept = Path(__file__).parents[1] / "benchmarks" / "results" / "accelerator.jsonl"
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    show_tables(lines)
    table = capsys.readouterr().err
    rates = [f"{line['physics_only_per_s']:,}" for line in lines if "physics_only_per_s" in line]
    assert rates
    assert all(rate in table for rate in rates)
    assert max(map(len, table.splitlines())) <= 80
