"""The command ``rmdp-jax``, also as ``python -m rmdp_jax``. What it imports takes seconds, in which Ctrl-C is heeded too."""

import os
import signal
import sys
from typing import Any

from rmdp_jax.version import __version__


def main() -> None:
    """Run the command line of this process, and exit."""
    if sys.argv[1:] == ["--version"]:
        print(f"rmdp-jax {__version__}")
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as in the background
        signal.signal(signal.SIGINT, _leave)
    try:
        from rmdp_jax.commands.program import run_program
    except ValueError as error:  # of a variable that JAX reads while it is imported
        print(f"rmdp-jax: error: JAX: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    run_program()


def _leave(number: int, frame: Any) -> None:
    """Nothing has begun, so nothing has to be ended; an exception in the midst of an import may come out as another one."""
    os.write(2, b"rmdp-jax: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
