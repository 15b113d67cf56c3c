import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import COMMAND, timeless

from rmdp_jax import ConfigError
from rmdp_jax.cli import main
from rmdp_jax.distributed import anyone, is_first, join
from rmdp_jax.runs import RunFolder

TIME_S = 200


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def run_two(out):
    """Both processes of `one_of_two.py` to their end; what they printed."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(Path(__file__).parent / "one_of_two.py")]
    port = str(free_port())
    running = [
        subprocess.Popen(
            [*command, str(process), port, str(out)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        told = [process.communicate(timeout=TIME_S) for process in running]
    finally:
        for process in running:
            process.kill()
    shown = "\n".join(f"--- process {number}\n{out}{err}" for number, (out, err) in enumerate(told))
    assert [process.returncode for process in running] == [0, 0], shown
    return told


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    """Stopped by Ctrl-C in one of them, and gone on with, on the way."""
    main([*COMMAND, "--out", str(tmp_path / "one")])
    (_, first_err), (second_out, second_err) = run_two(tmp_path / "two")
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
    assert "welfare" in first_err  # progress
    assert "welfare" not in second_out + second_err


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
