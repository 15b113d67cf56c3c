"""How long does a command take to its first iteration, the first time and once its programs are in the cache?"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import emit, machine, read_arguments, show

# What `rmdp-jax train` imports on its way, brax and MuJoCo for speed tasks only.
IMPORTS = "import rmdp_jax.commands.cli, rmdp_jax.running.train, rmdp_jax.envs, orbax.checkpoint"
BODIES = "import brax.envs, rmdp_jax.envs.native"
QUICK = ["--size", "2", "--environments", "4", "--unroll", "8", "--minibatches", "2", "--hidden", "8"]


@dataclass(frozen=True, kw_only=True)
class Startup:
    """`rmdp-jax train` twice, with an empty cache folder and then with what the first start left there."""

    envs: tuple[str, ...] = ("resource_gathering", "halfcheetah_speed")
    k: int = 5
    quick: bool = False
    """Resource Gathering on 2 x 2 cells with two small policies."""


def imports_s(env: str) -> float:
    """Seconds of a process that does nothing but import."""
    program = "; ".join([IMPORTS, BODIES] if env.endswith("_speed") else [IMPORTS])
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return time.perf_counter() - begun


def start(env: str, flags: list[str], caches: str) -> dict[str, float]:
    """One iteration by the command line, in a process that keeps its programs in `caches`."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": caches, "JAX_ENABLE_COMPILATION_CACHE": "true"}
    flags = [*flags, "--transitions", "1", "--log-every", "1", "--evaluation-episodes", "1", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rmdp_jax", "train", env, *flags, "--out", folder + "/run"]
        begun = time.time()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        whole_s = time.time() - begun
        if done.returncode:
            raise SystemExit(done.stderr)
        first_s = (Path(folder) / "run" / "metrics.jsonl").stat().st_mtime - begun  # its one line
        result = json.loads((Path(folder) / "run" / "result.json").read_text())
    return {"first_iteration_s": first_s, "compile_s": result["compile_s"], "whole_s": whole_s}


def measure(env: str, flags: list[str]) -> list[dict[str, Any]]:
    """A line for each of two starts."""
    imports_s(env)  # reads the files from the disk
    imports = imports_s(env)
    with tempfile.TemporaryDirectory() as caches:
        starts = [start(env, flags, caches) for _ in range(2)]
        kept = [path.stat().st_size for path in Path(caches).rglob("*-cache")]
    common = {"benchmark": "startup", "env": env, "cache_files": len(kept), "cache_mib": round(sum(kept) / 2**20, 2)}
    lines = []
    for number, seconds in enumerate(starts, 1):
        seconds |= {"imports_s": imports, "beyond_imports_s": seconds["first_iteration_s"] - imports}
        lines.append({**common, "start": number, **{name: round(value, 2) for name, value in seconds.items()}, **machine()})
    return lines


def main() -> None:
    """Two lines an env, then the table."""
    arguments = read_arguments(Startup, __doc__)
    flags = ["--k", "2" if arguments.quick else str(arguments.k), *(QUICK if arguments.quick else [])]
    rows = []
    for env in ["resource_gathering"] if arguments.quick else arguments.envs:
        for line in measure(env, flags):
            emit(line)
            names = ("env", "start", "imports_s", "compile_s", "first_iteration_s", "beyond_imports_s", "whole_s")
            rows.append([line[name] for name in names])
    columns = ["env", "start", "imports", "compile", "to 1st iteration", "beyond imports", "whole command"]
    show("seconds of two starts with the same cache folder", columns, rows)


if __name__ == "__main__":
    main()
