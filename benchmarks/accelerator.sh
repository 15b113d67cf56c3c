#!/usr/bin/env bash
# What one accelerator does: a table of rates, memory and parity with C MuJoCo. Under 9 minutes, no network.
# Takes --quick (also on a CPU). PYTHON names the interpreter; the package need not be installed, its dependencies must be.
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$repository"
if [ -z "${PYTHON:-}" ]; then
  if [ -x .venv/bin/python ]; then PYTHON="$repository/.venv/bin/python"; else PYTHON=python3; fi
fi
export XLA_PYTHON_CLIENT_PREALLOCATE=false # else peak memory reads as all there is
"$PYTHON" -m benchmarks.accelerator "$@"
