import json

import pytest

from rmdp_jax.commands.cli import main
from rmdp_jax.commands.pictures import draw_comparison
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.comparison import compare_runs
from rmdp_jax.records.files import RunWarning
from rmdp_jax.records.finished import find_runs


def run(algorithm="em", seed=0, k=2, welfare=80.0, **changes):
    """A line as result.json holds it, cut to what is read."""
    own, before = (
        (2048, 0) if algorithm != "cluster" else (974, 1000)
    )  # a little less than em's, as its iterations end elsewhere
    return {
        "format": 1,
        "env": "resource_gathering",
        "env_options": {"seed": seed, "n": 4},
        "backend": "jax",
        "algorithm": algorithm,
        "k": k,
        "n": 4,
        "seed": seed,
        "iterations": 20,
        "finished": True,
        "transitions_per_policy": own,
        "pretraining_transitions": before,
        "total_transitions": k * own + before,
        "welfare": welfare,
        "upper_bound": 90.0,
        "share_of_bound": round(welfare / 90, 4),
        **changes,
    }


RUNS = [
    *(run("em", seed, welfare=w) for seed, w in enumerate([84.0, 85.0, 87.0, 88.0])),
    *(run("cluster", seed, welfare=w) for seed, w in enumerate([74.0, 75.1, 76.9, 78.0])),
]


def write_folder(path, line, epochs=4):
    path.mkdir(parents=True)
    train = {"k": line["k"], "n": line["n"], "seed": line["seed"], "sizes": {"epochs": epochs}, "rates": {"clip": 0.2}}
    (path / "config.json").write_text(json.dumps({**line, "train": train}))
    if line["finished"]:
        (path / "result.json").write_text(json.dumps(line))


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_row_by_hand():
    em, cluster = compare_runs(RUNS)
    assert (em.algorithm, em.seeds, em.welfare, em.best, em.p) == ("em", 4, 86.0, True, None)
    assert em.standard_error == pytest.approx((10 / 3 / 4) ** 0.5)  # deviations -2, -1, 1, 2
    assert em.share == pytest.approx(86 / 90, abs=1e-4)
    assert (cluster.algorithm, cluster.welfare, cluster.best) == ("cluster", 76.0, False)
    assert cluster.p < 1e-6


def test_what_is_not_told_is_best_too_only_where_the_seeds_could_have_told():
    near = [85.0, 84.5, 87.2, 87.5]  # differences -1, 0.5, -0.2, 0.5: 2.8 would be significant, of 4.5
    far = [95.0, 75.0, 91.0, 80.0]  # differences from -10 to 11
    rows = {}
    for name, values in {"near": near, "far": far, "one": [80.0]}.items():
        _, rows[name] = compare_runs([*RUNS[:4], *(run("random", seed, welfare=w) for seed, w in enumerate(values))])
    assert {name: (row.best, row.too_few) for name, row in rows.items()} == {
        "near": (True, False),
        "far": (False, True),
        "one": (False, True),
    }


def test_the_leader_is_that_of_the_seeds_that_all_have():
    bounds = {0: 60.0, 1: 90.0, 2: 92.0, 3: 91.0}  # the targets of seed 0 are hard
    whole = [run("em", seed, welfare=w, upper_bound=bounds[seed]) for seed, w in enumerate([50.0, 84.0, 87.0, 86.0])]
    behind = [run("random", seed, welfare=w, upper_bound=bounds[seed]) for seed, w in [(1, 83.2), (2, 86.1), (3, 85.1)]]
    em, random = compare_runs([*whole, *behind])
    assert em.welfare < random.welfare
    assert (em.best, em.p, random.best, random.too_few) == (True, None, False, False)
    assert random.p < 0.01
    lucky = run("cluster", 1, welfare=89.0)  # of one seed nothing is known
    assert [(row.algorithm, row.best, row.too_few) for row in compare_runs([*whole, *behind, lucky])] == [
        ("em", True, False),
        ("cluster", False, True),
        ("random", False, False),
    ]


def test_cluster_is_compared_by_its_whole_budget_and_both_ways_of_counting_are_told():
    em, cluster = compare_runs(RUNS)
    assert em.transitions == cluster.transitions == 2048
    assert (em.total_transitions, cluster.total_transitions) == (4096, 2 * 974 + 1000)


def test_welfare_on_other_terms_is_another_welfare():
    rows = compare_runs(
        [run(seed=seed, welfare=w, **terms) for terms, w in (({}, 80.0), ({"welfare_p": 0.0}, 60.0)) for seed in (0, 1)]
    )
    assert [(row.options, row.best) for row in rows] == [("", True), ("p-mean of returns, p = 0.0", True)]


def test_other_tasks_budgets_and_k_are_other_groups():
    others = [
        {"k": 3},
        {"n": 8},
        {"backend": "mjx"},
        {"env_options": {"seed": 0, "n": 4, "size": 3}},
        {"transitions_per_policy": 4096, "iterations": 40},
    ]
    rows = compare_runs([*RUNS, *(run(welfare=1.0, **change) for change in others)])
    assert len(rows) == 2 + len(others)
    assert all(row.best for row in rows if row.welfare == 1.0)  # nothing to be compared with


def test_the_same_people_for_all_seeds_are_another_task():
    own = [run(seed=seed, welfare=80.0 + seed) for seed in range(3)]
    shared = [run(seed=seed, welfare=60.0 + seed, env_options={"seed": 0, "n": 4}) for seed in range(3)]
    rows = compare_runs(own + shared[1:])
    assert [(row.options, row.seeds, row.welfare) for row in rows] == [("", 3, 81.0), ("people_seed=0", 2, 61.5)]
    (row,) = compare_runs(shared)  # the first seed is that of the people
    assert (row.options, row.seeds, row.welfare) == ("people_seed=0", 3, 61.0)
    assert [row.options for row in compare_runs(own)] == [""]


def test_a_budget_is_that_of_its_own_task():
    short, other = run(transitions_per_policy=10_000, iterations=10), run(k=3, transitions_per_policy=10_500, iterations=2)
    assert [(row.k, row.transitions) for row in compare_runs([short, other])] == [(2, 10_000), (3, 10_500)]


def test_runs_that_differ_in_rates_people_or_maker_are_no_copies(tmp_path):
    lines = [
        *(run(welfare=welfare, settings={"learning_rate": welfare}) for welfare in (1.0, 2.0)),
        run(welfare=3.0, env_options={"seed": 7, "n": 4}),
        *(run(welfare=4.0, env="mine", make=f"/somewhere/{name}.py:make") for name in ("one", "two")),
    ]
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]))
    found = find_runs([file])
    assert found.lines == lines
    with file.open("a") as more:
        more.write("".join(json.dumps(run(seed=9, welfare=welfare)) + "\n" for welfare in (5.0, 6.0)))  # of no known settings
    with pytest.warns(RunWarning, match="a run of seed 9 is there with another welfare, and no settings; the first counts"):
        assert [line["welfare"] for line in find_runs([file]).lines if line["seed"] == 9] == [5.0]
    assert {row.options for row in compare_runs(found.lines) if row.env == "mine"} == {"one.py:make", "two.py:make"}


def test_a_setting_that_one_run_has_by_default_is_part_of_the_name_of_the_other():
    lines = [run(seed=0, settings={"epochs": 4}), run(seed=1, settings={"epochs": 4, "explore": "apart"})]
    assert {row.algorithm: row.seeds for row in compare_runs(lines)} == {"em": 1, "em explore=apart": 1}
    unknown = run(seed=2)  # as benchmarks and earlier versions wrote it
    assert {row.algorithm: row.seeds for row in compare_runs([lines[0], unknown])} == {"em": 2}


def test_settings_that_vary_are_part_of_the_name():
    lines = [run(seed=0, settings={"epochs": e, "clip": 0.2}) for e in (4, 10)]
    assert [row.algorithm for row in compare_runs(lines)] == ["em epochs=10", "em epochs=4"]


def test_runs_are_found_in_folders_and_files_and_counted_once(tmp_path):
    for line in RUNS[:3]:
        write_folder(tmp_path / "sweep" / f"em-s{line['seed']}", line)
    write_folder(tmp_path / "sweep" / "going-on", run("em", 9, finished=False))
    write_lines(tmp_path / "sweep" / "runs.jsonl", RUNS[:3])
    file = write_lines(tmp_path / "more.jsonl", RUNS[3:])
    found = find_runs([tmp_path / "sweep", file])
    assert sorted((line["algorithm"], line["seed"]) for line in found.lines) == sorted(
        (line["algorithm"], line["seed"]) for line in RUNS
    )
    assert (found.unfinished, found.repeated) == (1, 0)
    twice = find_runs([tmp_path / "sweep", tmp_path / "sweep" / "em-s0"])
    assert (len(twice.lines), twice.repeated) == (3, 1)


def test_a_run_that_came_out_otherwise_is_named(tmp_path):
    for name, welfare in (("new", 30.0), ("old", 60.0)):
        write_folder(tmp_path / name, run(welfare=welfare))
    with pytest.warns(RunWarning, match=r"old: a run of seed 0 is there with another welfare, and equal settings; the first"):
        found = find_runs([tmp_path])
    assert [line["welfare"] for line in found.lines] == [30.0]


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    file = write_lines(tmp_path / "runs.jsonl", RUNS)
    file.write_text(file.read_text() + '{"env": "resou')
    assert len(find_runs([file]).lines) == len(RUNS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "no finished run found"),
        ('{"env": "x"}\n', "line 1: has no env_options"),
        ("half\n{}\n", "line 1 is not JSON"),
        (json.dumps(run(frozen=5)) + "\n", "line 1: frozen = 5: must be a list of objects with run, policy and sha256"),
        (json.dumps(run(env_options={"seed": [1]})) + "\n", r"line 1: env_options = .* and its seed a whole number"),
        (json.dumps(run(finished=False)) + "\n", "1 unfinished"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "runs.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=message):
        find_runs([tmp_path / "runs.jsonl"])


def test_the_picture_has_a_panel_a_task():
    figure = draw_comparison(compare_runs([*RUNS, run(n=8)]))
    assert [axes.get_title("left") for axes in figure.axes] == [
        "resource_gathering, n = 4, 2k per policy",
        "resource_gathering, n = 8, 2k per policy",
    ]


def test_panels_of_other_backends_and_close_budgets_are_told_apart():
    close = [run("em", seed, transitions_per_policy=2049, iterations=2049) for seed in range(2)]
    figure = draw_comparison(compare_runs([*RUNS, *close, run(backend="mjx")]))
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_title("left")]
    assert titles == [
        f"resource_gathering, n = 4, 2k per policy ({detail})" for detail in ("2,048, jax", "2,048, mjx", "2,049, jax")
    ]


def test_budgets_of_lines_that_tell_no_iterations_are_their_own():
    long = [run("em", seed, transitions_per_policy=1_900_000) for seed in range(2)]
    short = [run("random", seed, transitions_per_policy=1_000_000) for seed in range(2)]
    for line in (*long, *short):
        del line["iterations"]
    assert {row.algorithm: row.transitions for row in compare_runs([*long, *short])} == {"em": 1_900_000, "random": 1_000_000}


def test_compare_prints_a_table_that_fits(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    long = [run("end_to_end_surrogate", seed, k=10, welfare=80 + seed) for seed in range(3)]
    file = write_lines(tmp_path / "runs.jsonl", [*RUNS, *long])
    picture = tmp_path / "new" / "picture.png"
    main(["compare", str(file), "--picture", str(picture)])
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if not line.startswith("picture")) <= 80
    assert "…" not in out
    assert "or not significantly below it (paired t-test, 0.01; p)\n" in out
    assert "*86.00 ± 0.91" in out
    assert "76.00 ± 0.90" in out
    assert "2,048 transitions per policy" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_compare_prints_json_lines(tmp_path, capsys):
    file = write_lines(tmp_path / "runs.jsonl", RUNS)
    main(["compare", str(file), "--json"])
    em, cluster = map(json.loads, capsys.readouterr().out.splitlines())
    assert (em["algorithm"], em["welfare"], cluster["best"]) == ("em", 86.0, False)


def test_nothing_to_compare_is_told_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(tmp_path)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"rmdp-jax: error: runs = {tmp_path}: no finished run found")
