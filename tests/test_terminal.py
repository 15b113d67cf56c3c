import io
import sys

import pytest
from tiny import CONFIG, make_tiny

from rmdp_jax import train
from rmdp_jax.commands.tables import print_comparison, print_evaluation, print_pictures, print_rendered, print_summary
from rmdp_jax.commands.usage import wrap_usage
from rmdp_jax.evaluation.comparison import compare_runs
from rmdp_jax.evaluation.fairness import fairness
from rmdp_jax.plots import Bar, save, welfare_by_k
from rmdp_jax.records.finished import Found
from rmdp_jax.running.progress import announce, report_progress
from rmdp_jax.terminal import ERRORS, PlainConsole, _patient, keep_streams, plus_minus, visible

NAMES = ["a[/b]c", "[bold]x[/bold]", "[red]", "back\\slash\\[x]", ":smile: $x^$", "smile 😀", "tab\tnew\nline", "\x1b[31mred"]


@pytest.fixture(scope="module")
def result():
    return train(*make_tiny(), CONFIG, progress=False).summary


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_were_typed(name, result, capsys):
    print_pictures([name])
    print_rendered(name, name, name)
    print_summary(result | {"env": name, "algorithm": name, "device": name, "backend": name})
    row = compare_runs([result | {"finished": True}])[0]._replace(env=name, options=name, algorithm=name, backend=name)
    print_comparison([row], Found([], 0, 0))
    with report_progress(True, 1, stage=name) as reporter:
        reporter.say(name)
        reporter.note(name)
        reporter.update([{"iteration": 1, "welfare": None, "transitions_per_s": 1.0}])
    announce(True, name)
    out, err = capsys.readouterr()
    shown = visible(name)
    assert out.count(shown) >= 4 + 4 + 3  # pictures and pages, the summary, the comparison (which folds the algorithm)
    assert err.count(shown) == 2 + 2 + 1 + 1
    assert "\x1b" not in out + err


def test_options_of_the_task_are_told(result, capsys):
    print_summary(result | {"env": "ant_speed", "env_options": {"seed": 0, "n": 3, "model": "gymnasium"}})
    assert capsys.readouterr().out.split("\n")[1].startswith("ant_speed model=gymnasium  ")


def test_only_what_moves_the_cursor_is_escaped():
    assert visible("tab\t, line\n, \x1b[31m, \x7f, \udcff, ü 😀 \\ [/b]") == (
        "tab\\t, line\\n, \\x1b[31m, \\x7f, \\udcff, ü 😀 \\ [/b]"
    )


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "1 +- 2 +-| \\xfc \\U0001f600"), ("latin-1", "1 ± 2 +-| ü \\U0001f600"), ("utf-8", None)]
)
def test_what_an_encoding_lacks_is_written_plainer(encoding, shown):
    text = "1 ± 2 ╭─│ ü 😀"
    assert text.encode(encoding, ERRORS).decode(encoding) == (shown or text)


def test_tables_are_as_wide_in_ascii(monkeypatch, result):
    lines = {}
    for encoding in ("ascii", "utf-8"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
        monkeypatch.setattr(sys, "stdout", stream)
        print_summary(result)
        spread = fairness([1.0, 2.0], [True, False])._asdict()
        evaluation = result | {"episodes": 8, "best_welfare": 1.0, "fairness": spread, "unserved_below": 1.5}
        print_evaluation(evaluation)
        stream.flush()
        lines[encoding] = stream.buffer.getvalue()
        assert plus_minus() == {"ascii": "+-", "utf-8": "±"}[encoding]
    assert lines["ascii"].decode().replace("+-", "±").split() == lines["utf-8"].decode().split()
    assert max(map(len, lines["ascii"].decode().splitlines())) <= 80


class Full(io.StringIO):
    """A stream of which nobody takes anything."""

    def __init__(self, error):
        super().__init__()
        self.error, self.tried = error, 0

    def write(self, text):
        self.tried += 1
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")], ids=repr)
def test_progress_that_nobody_reads_stops_nobody(monkeypatch, error):
    full = Full(error)
    monkeypatch.setattr(sys, "stderr", full)
    announce(True, "a program")
    assert full.tried == 1
    with report_progress(True, 2) as reporter:
        for iteration in (1, 2):
            reporter.say("compiling")
            reporter.note("memory")
            reporter.update([{"iteration": iteration, "welfare": 1.0, "transitions_per_s": 1.0}])
    assert full.tried == 2  # once more, by another console, and not again once it had failed


def test_a_closed_stream_is_silent(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    console = PlainConsole()
    console.print("nobody hears it")
    assert console.quiet


def test_a_patient_stream_takes_everything_and_knows_of_it():
    with open("/dev/full", "w") as full:
        text, raw = _patient(full)
        text.write("x" * 100_000)
        text.flush()
        assert raw.failure.strerror == "No space left on device"
        text.write("more")
        text.flush()


def test_missing_streams_are_replaced(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    failure = keep_streams()
    print("to nobody")
    print("to nobody", file=sys.stderr)
    assert failure() is None
    assert sys.stdin.read() == ""


def test_usage_is_wrapped_between_words_only():
    line = "usage: rmdp-jax evaluate [-h] DIR [DIR ...] [--picture {None}|PATH] [--seed INT]\n"
    text = line + "\n" + "x" * 70 + "\n"
    wrapped = wrap_usage(text, 40).splitlines()
    assert max(len(one) for one in wrapped[:-1]) <= 40
    assert " ".join(one.strip() for one in wrapped[:-2]) == line.strip()
    assert not any(one.count("[") != one.count("]") for one in wrapped)
    assert wrapped[-1] == "x" * 70  # only what is usage
    assert wrap_usage(text, 100) == text


def test_names_in_pictures_are_no_formulas(tmp_path):
    figure = welfare_by_k(
        [Bar("$x^ {", 2, "a_$b", 1.0, None, True), Bar("$x^ {", 2, "<b>&", 2.0, 0.1, False)], {}, title="$\\no{"
    )
    assert save(figure, tmp_path / "it.png").stat().st_size > 1000
