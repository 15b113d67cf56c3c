"""What breaks, and what is left of a run: killed, signalled, checkpoints damaged, disk full, NaN anywhere, bad input.

    python -m benchmarks.faults [--quick] [--only kills signals ...]

A row of the table: how often a fault was tried and survived, and how many iterations were `lost`, to be done again. What
surviving means is said by each kind in `benchmarks/fault_kinds.py` and `benchmarks/fault_processes.py`. `silent` counts what
may never be: a result that is wrong without a word, or a traceback.
"""

import argparse
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.common import clean_exit, emit, machine, show
from benchmarks.fault_kinds import Tried, damaged_checkpoints, spoiled_envs, spoiled_states
from benchmarks.fault_processes import drawn_input, full_disks, kills, signals

KINDS: dict[str, Callable[[Path, bool], Iterator[Tried]]] = {
    "envs": spoiled_envs,
    "states": spoiled_states,
    "checkpoints": damaged_checkpoints,
    "input": drawn_input,
    "kills": kills,
    "signals": signals,
    "disks": full_disks,
}


def main() -> None:
    """Try all kinds, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few of each kind")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), help="kinds to try")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which what a shell starts in the background ignores
    rows: dict[tuple[str, str], list[Tried]] = {}
    with clean_exit("faults", "the same command begins anew"), tempfile.TemporaryDirectory() as folder:
        for kind in arguments.only:
            place = Path(folder) / kind
            place.mkdir()
            for tried in KINDS[kind](place, arguments.quick):
                rows.setdefault((kind, tried.fault), []).append(tried)
                if not tried.survived:
                    emit({"kind": kind, **tried._asdict()})
        table = [_row(*name, tries) for name, tries in rows.items()]
        for row in table:
            emit({"benchmark": "faults", **row, **({} if arguments.quick else machine())})
    columns = ["kind", "fault", "tried", "survived", "lost", "silent"]
    show("What breaks, and what is left", columns, [[str(value) for value in row.values()] for row in table])


def _row(kind: str, fault: str, tries: list[Tried]) -> dict[str, object]:
    lost = [tried.lost for tried in tries if tried.lost is not None]
    return {
        "kind": kind,
        "fault": fault,
        "tried": len(tries),
        "survived": sum(tried.survived for tried in tries),
        "lost": max(lost) if lost else "-",
        "silent": sum(not tried.survived for tried in tries),
    }


if __name__ == "__main__":
    main()
