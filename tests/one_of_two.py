"""Run by test_distributed.py, twice at once: one of two processes that train together.

    python one_of_two.py PROCESS PORT OUT SECONDS

In the first process somebody presses Ctrl-C halfway; then both go on. After SECONDS it prints where it is stuck.
"""

import faulthandler
import sys

import jax
import pytest
from tiny import COMMAND, stop_at

from rmdp_jax.commands.cli import main
from rmdp_jax.records.writer import RunWriter


def train_both(process: str, port: str, out: str) -> None:
    add = RunWriter.add
    if process == "0":
        RunWriter.add = lambda writer, line: (add(writer, line), stop_at(10)(line))
    where = ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process-id", process]
    with pytest.raises(SystemExit) as stop:
        main([*COMMAND, "--out", out, *where])
    assert stop.value.code == 75  # unfinished
    assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 2, 1)
    RunWriter.add = add
    main([*COMMAND, "--out", out, "--resume"])


if __name__ == "__main__":
    faulthandler.dump_traceback_later(float(sys.argv[4]), exit=True)
    train_both(*sys.argv[1:4])
