"""What a result and a loaded run offer people, in a notebook and elsewhere."""

import math
import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure
from tiny import CONFIG, K, N, assert_same, make_tiny, stop_at, timeless

from rmdp_jax import ConfigError, Result, Results, load_run, random_even, train
from rmdp_jax.commands.cli import main
from rmdp_jax.records.tables import MOST_ROWS, html_table


def run(**options):
    rates = replace(CONFIG.rates, utility_decay=1.0 - 1e-7)  # running utilities forget nothing
    return train(*make_tiny(), replace(CONFIG, rates=rates), random_even(K, N), **{"progress": False, **options})


@pytest.fixture(scope="module")
def stopped():
    """Two runs in memory, of half their length."""
    return run(seeds=2, on_metrics=lambda line: stop_at(10)(line) if line["seed"] == CONFIG.seed else None)


@pytest.fixture(scope="module")
def saved(stopped, tmp_path_factory):
    return stopped[0].save(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(params=["result", "run"])
def one(request, stopped, saved):
    return stopped[0] if request.param == "result" else load_run(saved)


def test_it_prints_as_a_few_lines(one):
    assert len(repr(one).splitlines()) <= 5
    assert len(repr(one)) < 500
    assert f"welfare {one.summary['welfare']:.2f}" in repr(one)
    assert "stopped early, at iteration 10" in repr(one)
    assert one._repr_html_().count("<tr>") == 1 + K


def test_tables_say_what_the_summary_says(one):
    utility, labels = np.array(one.summary["utility"]), np.array(one.summary["assignment"])
    table, agents, history = one.table(), one.agents(), one.history
    assert one.welfare == one.summary["welfare"] == pytest.approx(agents["return"].mean(), rel=1e-5)
    assert table["agents"].tolist() == one.summary["policy_sizes"]
    assert table["worst_return"].tolist() == [utility[j, labels == j].min() for j in range(K)]
    assert table["mean_return"].tolist() == pytest.approx([utility[j, labels == j].mean() for j in range(K)])
    assert agents["cell"].tolist() == [0, 1, 2, 3]
    assert agents["policy"].tolist() == labels.tolist()
    assert agents["best_return"].tolist() == utility.max(0).tolist()
    assert history["iteration"].tolist() == [5, 10]
    assert history["policy_sizes_1"].tolist() == [line["policy_sizes"][1] for line in one.metrics]
    assert not {"assignment", "policy_sizes"} & set(history)


def test_what_an_agent_is_made_of_is_kept_beside_what_it_gets(one):
    (column,) = one.population.columns
    population = one.population._replace(columns=(column._replace(name="return"),))
    of_one = {"spec": one.spec._replace(population=population)} if isinstance(one, Result) else {"population": population}
    agents = one._replace(**of_one).agents()
    assert agents["return_"].tolist() == one.agents()[column.name].tolist()
    assert agents["return"].tolist() == one.agents()["return"].tolist()


def test_every_picture_is_a_figure_that_shows_itself(one):
    managed = _pylab_helpers.Gcf.get_all_fig_managers()  # by other tests
    assert one.plot.names == ["welfare", "assignment", "utility", "agents", "walks"]
    for name in one.plot.names:
        figure = getattr(one.plot, name)()
        assert isinstance(figure, Figure)
        assert f".plot.{name}()" in repr(one.plot)
    png, shown = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert shown["alt"].startswith("Walks of 2 policies")
    assert _pylab_helpers.Gcf.get_all_fig_managers() == managed


def test_a_picture_of_what_was_not_logged_is_refused(one):
    env = one.env._replace(pictures={"nothing": lambda run: None})
    with pytest.raises(ConfigError, match=r"^plot.nothing: this run did not log"):
        one._replace(env=env).plot.nothing()


def test_what_was_saved_is_read_by_commands_and_goes_on(stopped, saved, tmp_path, capsys):
    result, loaded = stopped[0], load_run(saved)
    assert timeless(loaded.metrics[-1]) == timeless(result.metrics[-1])
    assert_same(loaded.policies, result.policies)
    main(["report", str(saved), "--pictures", str(tmp_path)])
    assert f"{result.welfare:.2f}" in capsys.readouterr().out
    assert (saved / "episodes.npz").exists()
    with pytest.raises(ConfigError, match="already holds a run"):
        result.save(saved)
    copied = loaded.save(tmp_path / "copy")
    assert load_run(copied).welfare == loaded.welfare
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(ConfigError, match="already holds a run"):
        loaded.save(copied)


def test_several_seeds_are_a_list_that_tells_of_all(stopped, tmp_path):
    assert isinstance(stopped, Results)
    assert isinstance(stopped, list)
    assert stopped.welfare == pytest.approx(np.mean([one.summary["welfare"] for one in stopped]))
    assert stopped.best.welfare == max(one.welfare for one in stopped)
    table = stopped.table()
    assert table.index.tolist() == [CONFIG.seed, CONFIG.seed + 1]
    assert table["welfare"].tolist() == [one.welfare for one in stopped]
    assert isinstance(stopped.history, pd.DataFrame)
    assert stopped.history["seed"].tolist() == [3, 3, 4, 4]
    assert len(repr(stopped).splitlines()) == 3
    assert stopped._repr_html_().count("<tr>") == 1 + 2
    assert repr(Results()) == "[]"
    stopped.save(tmp_path)
    assert load_run(tmp_path / "seed-4").welfare == stopped[1].welfare


def test_recent_welfare_is_the_running_one_of_a_memory_that_begins_with_the_line(stopped):
    first, second = stopped[0].metrics
    assert first["welfare_recent"] == pytest.approx(first["welfare"], rel=1e-4)  # all there is, and nothing decays
    # and then the running one is the mean over both halves, by the episodes that ended in each
    lines = (first["welfare_recent"], second["welfare_recent"])
    assert min(lines) <= second["welfare"] <= max(lines)
    assert second["welfare_recent"] != pytest.approx(second["welfare"], rel=1e-4)


def test_without_pandas_the_way_to_it_is_said(one, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for look in (one.table, one.agents, lambda: one.history):
        with pytest.raises(ConfigError, match=r"pip install 'rmdp-jax\[notebook\]'"):
            look()
    assert "<table>" in one._repr_html_()


def test_a_long_table_shows_its_first_rows():
    shown = html_table([{"policy": j, "return": math.nan} for j in range(MOST_ROWS + 7)], "<table>")
    assert shown.count("<tr>") == 1 + MOST_ROWS
    assert "and 7 more; &lt;table&gt;" in shown
    assert "<td>-</td>" in shown
