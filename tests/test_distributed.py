import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tiny import COMMAND, timeless

from rmdp_jax import ConfigError
from rmdp_jax.commands.cli import main
from rmdp_jax.devices.processes import anyone, is_first, join
from rmdp_jax.records.folder import RunFolder

TIME_S = 200


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def run_two(out):
    """Both processes of `one_of_two.py` to their end; what they printed."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    script, port = Path(__file__).parent / "one_of_two.py", str(free_port())
    with ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)]
        running = [
            subprocess.Popen(
                [sys.executable, str(script), str(process), port, str(out), str(TIME_S - 10)],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            for process, log in enumerate(logs)
        ]
        for process in running:
            stack.callback(process.kill)
        ended = [_wait(process) for process in running]
        texts = [log.seek(0) or log.read() for log in logs]
    assert ended == [0, 0], "\n".join(f"--- process {number}\n{text}" for number, text in enumerate(texts))
    return texts


def _wait(process):
    try:
        return process.wait(TIME_S)
    except subprocess.TimeoutExpired:
        return None


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_two_processes_learn_what_one_learns(tmp_path):
    """Stopped by Ctrl-C in one of them, and gone on with, on the way."""
    main([*COMMAND, "--out", str(tmp_path / "one")])
    first, second = run_two(tmp_path / "two")
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")

    lines = two.read_metrics()
    assert [line["iteration"] for line in lines] == [5, 10, 15, 20]
    for a, b in zip(one.read_metrics(), lines, strict=True):
        assert a.keys() == b.keys()
        for name in timeless(a):
            np.testing.assert_allclose(a[name], b[name], atol=2e-4, err_msg=name)  # both are rounded to four digits
    result = two.read_result()
    assert (result["finished"], result["devices"], one.read_result()["devices"]) == (True, 2, 1)
    assert result["assignment"] == one.read_result()["assignment"]
    np.testing.assert_allclose(result["utility"], one.read_result()["utility"], atol=1e-3)
    main(["evaluate", str(tmp_path / "two"), "--episodes", "2"])  # by one process

    assert sorted(path.name for path in two.path.iterdir()) == sorted(path.name for path in one.path.iterdir())
    assert json.loads((two.path / "config.json").read_text()) == json.loads((one.path / "config.json").read_text())
    assert "welfare" in first  # progress and the table
    assert "welfare" not in second


def test_one_process_is_the_first_and_asks_nobody():
    assert is_first()
    assert anyone(True)
    assert not anyone(False)


def test_what_is_missing_is_named(monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "PMIX_RANK", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    with pytest.raises(ConfigError, match=r"distributed: coordinator_address .* give coordinator, processes and process_id"):
        join()


def test_jax_that_is_awake_already_is_named():
    with pytest.raises(ConfigError, match=r"distributed: jax.distributed.initialize\(\) must be called before"):
        join("127.0.0.1:1", 2, 0)
