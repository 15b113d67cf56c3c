"""Progress in a notebook: one output, whatever happens."""

import pytest

from rmdp_jax.running import progress


class Handle:
    """What IPython's `DisplayHandle` is to a notebook."""

    shown: list[dict[str, str]]
    displayed = 0

    def display(self, bundle, raw):
        assert raw
        Handle.displayed += 1
        Handle.shown = [bundle]

    def update(self, bundle, raw):
        assert raw
        Handle.shown.append(bundle)


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.DisplayHandle", Handle)
    Handle.displayed = 0


def line(iteration):
    return {"iteration": iteration, "welfare": 12.5, "transitions_per_s": 1000.0}


@pytest.mark.usefixtures("notebook")
def test_a_notebook_has_one_output_with_a_bar(monkeypatch, capsys):
    clock = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    with progress.report_progress(True, 40) as reporter:
        reporter.note("memory: <little>")
        reporter.say("compiling")
        for iteration in (10, 20, 40):
            reporter.update([line(iteration)])
        training = Handle.shown[-2]
        reporter.say("evaluating")
        reporter.warn("steps diverged")
    last = Handle.shown[-1]
    assert Handle.displayed == 1
    assert capsys.readouterr() == ("", "")
    assert "value='20' max='40'" in training["text/html"]
    assert "training: welfare  12.5" in training["text/plain"]
    assert " left" in training["text/plain"]
    assert "value='40' max='40'" in last["text/html"]
    assert "memory: &lt;little&gt;" in last["text/html"]
    assert "warning: steps diverged" in last["text/plain"]
    stages = [stage.split(" ")[0].rstrip(":") for stage in last["text/plain"].splitlines()[1].split(" · ")]
    assert stages == ["starting", "training", "evaluating"]
    assert last["text/plain"].splitlines()[0].endswith("done")


@pytest.mark.usefixtures("notebook")
def test_an_error_leaves_the_bar_where_it_was():
    with pytest.raises(KeyError), progress.report_progress(True, 40) as reporter:  # noqa: PT012
        reporter.update([line(10)])
        raise KeyError
    assert Handle.shown[-1]["text/plain"].splitlines()[0].startswith("10/40 iterations  stopped")
