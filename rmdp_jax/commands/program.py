"""The command line as a process: its streams, its signals and its exit code."""

import os
import signal
import sys
import threading
from typing import Any, NoReturn

from rmdp_jax.commands.cli import main
from rmdp_jax.terminal import keep_streams, visible


def run_program() -> NoReturn:
    """Run `main` and exit.

    Standard output that nobody reads on (``| head -1``) or that is closed changes nothing: the program goes on, and its exit
    code is its own. Where it cannot be written (a full disk) that is said in one line at the end, and the code is 1 at least.
    """
    failure = keep_streams()
    sys.unraisablehook = _heed_again
    code: int | str | None = 0
    try:
        if callable(signal.getsignal(signal.SIGINT)):  # of `__main__`; not where Ctrl-C is ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except SystemExit as stop:
        code = stop.code
    finally:
        if callable(signal.getsignal(signal.SIGINT)):  # a second Ctrl-C while threads are waited for ends it without a word
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    failed = failure()
    if failed is not None and not isinstance(failed, BrokenPipeError):
        print(f"rmdp-jax: error: standard output: {visible(failed.strerror or str(failed))}", file=sys.stderr)
        code = code or 1
    sys.exit(code)


def _heed_again(lost: Any) -> None:
    """Send a Ctrl-C again that came in a callback of the garbage collector (JAX has one), where Python ignores it."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)
