"""What an optimised program of XLA launches, computes and moves, read off its text: loops count as often as they run.

XLA's own `cost_analysis` counts the body of a loop once, and says nothing for a device that is not there.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s64": 8, "u64": 8, "f64": 8, "c64": 8}
_NO_KERNEL = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all", "iota"),
    *("partition-id", "replica-id", "copy-done", "async-done", "async-update", "opt-barrier", "add-dependency", "domain"),
}
_MOVES = _NO_KERNEL | {
    *("copy", "copy-start", "broadcast", "reshape", "transpose", "slice", "dynamic-slice", "dynamic-update-slice"),
    *("concatenate", "pad", "reverse", "gather", "scatter", "convert", "fusion", "custom-call", "bitcast-convert"),
}
_SLICES = ("dynamic-slice", "slice", "gather")


@dataclass(frozen=True)
class Op:
    """One instruction."""

    name: str
    shape: str
    kind: str
    given: str  # what stands in parentheses
    rest: str  # attributes

    @cached_property
    def operands(self) -> list[str]:
        """Names of the instructions that it takes."""
        return re.findall(r"%([\w.\-]+)", self.given)

    @property
    def elements(self) -> int:
        """Numbers in what it gives."""
        return sum(math.prod(dims) for _, dims in _arrays(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of what it gives."""
        return sum(_BYTES.get(kind, 4) * math.prod(dims) for kind, dims in _arrays(self.shape))

    @cached_property
    def op_name(self) -> str:
        """Where in our code it comes from: scopes, joined by slashes."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    def called(self, attribute: str) -> list[str]:
        """Computations that it names by an attribute."""
        found = re.search(rf"{attribute}=(?:\{{([^}}]*)\}}|%?([\w.\-]+))", self.rest)
        return [] if not found else re.findall(r"[\w.\-]+", found[1] or found[2])


@dataclass
class Computation:
    """Instructions by name, in order."""

    ops: dict[str, Op] = field(default_factory=dict)


@dataclass(frozen=True)
class Kernel:
    """One launch in the text, and how often it is run."""

    op: Op
    path: str  # scopes of the loops around it, and its own
    times: int
    flops: int  # of one run
    nbytes: int  # likewise, read and written


@dataclass(frozen=True)
class Launches:
    """All that a program launches."""

    kernels: list[Kernel]
    unknown_loops: int  # whose rounds depend on data: they are taken to run `rounds` times


def _arrays(shape: str) -> Iterator[tuple[str, list[int]]]:
    for kind, dims in re.findall(r"\b(pred|[sufc]\d+|bf16|f8\w+)\[([\d,]*)\]", shape):
        yield kind, [int(size) for size in dims.split(",") if size]


def _to_close(text: str, begin: int) -> int:
    """Where the parenthesis that opens at `begin` closes."""
    depth = 0
    for place in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"no end of {text[begin : begin + 60]!r}")


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Computations of an HLO module by name, and the name of the one that is run."""
    computations: dict[str, Computation] = {}
    entry, now = "", Computation()
    for line in text.splitlines():
        begins = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if begins:
            now = computations[begins[2]] = Computation()
            entry = begins[2] if begins[1] else entry
            continue
        found = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
        if not found:
            continue
        at = found.end()
        end = _to_close(line, at) + 1 if line[at] == "(" else line.index(" ", at)
        kind = re.match(r"\s*([\w\-]+)", line[end:])
        assert kind
        opens = line.index("(", end)
        closes = _to_close(line, opens)
        now.ops[found[2]] = Op(found[2], line[at:end], kind[1], line[opens + 1 : closes], line[closes + 1 :])
    return computations, entry


def launches(text: str, rounds: int = 1) -> Launches:
    """Kernels of an optimised HLO module: fusions, calls of libraries and whatever else stands alone.

    Of the branches of a conditional that with the fewest launches counts: what is rare is behind them. Loops whose rounds
    depend on data run `rounds` times.
    """
    computations, entry = parse(text)
    unknown = 0

    def walk(name: str, path: str, times: int) -> list[Kernel]:
        nonlocal unknown
        found: list[Kernel] = []
        for op in computations[name].ops.values():
            here = f"{path} {op.op_name}"
            if op.kind == "while":
                known = re.search(r'known_trip_count"?:\{"?n"?:"(\d+)"', op.rest)
                unknown += known is None
                inner = times * (int(known[1]) if known else rounds)
                found += [*walk(op.called("body")[0], here, inner), *walk(op.called("condition")[0], here, inner)]
            elif op.kind == "conditional":
                branches = op.called("branch_computations") or [
                    *op.called("true_computation"),
                    *op.called("false_computation"),
                ]
                found += min(
                    (walk(branch, here, times) for branch in branches), key=lambda kernels: sum(k.times for k in kernels)
                )
            elif op.kind in ("call", "async-start"):
                for inner_name in op.called("to_apply") or op.called("calls"):
                    found += walk(inner_name, here, times)
            elif op.kind not in _NO_KERNEL:
                found.append(Kernel(op, here, times, _flops(computations, name, op), _moved(computations, name, op)))
        return found

    return Launches(walk(entry, "", 1), unknown)


def _flops(computations: dict[str, Computation], name: str, op: Op) -> int:
    """Operations of one run of a kernel: 2 m n k of products, one for each number elsewhere."""
    if op.kind == "fusion":
        return sum(_flops_of(ops, inner) for ops in _inside(computations, op) for inner in ops.values())
    return _flops_of(computations[name].ops, op)


def _inside(computations: dict[str, Computation], op: Op) -> Iterator[dict[str, Op]]:
    for name in op.called("calls"):
        yield computations[name].ops
        for inner in computations[name].ops.values():
            if inner.kind == "fusion":
                yield from _inside(computations, inner)


def _flops_of(ops: dict[str, Op], op: Op) -> int:
    if op.kind == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", op.rest)
        (_, dims), *_ = _arrays(ops[op.operands[0]].shape)
        assert contracted
        return 2 * op.elements * math.prod(dims[int(axis)] for axis in contracted[1].split(",") if axis)
    if op.kind == "custom-call":
        return _flops_of_call(ops, op)
    if op.kind == "reduce":
        return ops[op.operands[0]].elements
    return 0 if op.kind in _MOVES else op.elements


def _flops_of_call(ops: dict[str, Op], op: Op) -> int:
    """Of products and triangular matrices in libraries; others are taken to compute nothing."""
    shapes = [dims for operand in op.operands[:2] for _, dims in list(_arrays(ops[operand].shape))[:1]]
    (_, given), *_ = _arrays(op.shape)
    if "gemm" in op.rest or "matmul" in op.rest:
        batch = math.prod(given[:-2])
        left, right = (math.prod(dims) for dims in shapes)
        return 2 * round(math.prod(given) * math.sqrt(left * right / (math.prod(given) * batch)))
    if "potrf" in op.rest or "Cholesky" in op.rest:
        return math.prod(given) * given[-1] // 3
    if "trsm" in op.rest or "triangular" in op.rest.lower():
        return math.prod(given) * shapes[0][-1]
    return 0


def _moved(computations: dict[str, Computation], name: str, op: Op) -> int:
    """Bytes that a kernel reads and writes: of what it slices the slice, of what it updates in place the update."""
    ops = computations[name].ops
    read = {place: ops[operand].nbytes for place, operand in enumerate(op.operands)}
    written = op.nbytes
    if op.kind == "dynamic-update-slice":
        return 2 * ops[op.operands[1]].nbytes
    if op.kind in _SLICES:
        return 2 * written
    if op.kind == "fusion":
        inside = computations[op.called("calls")[0]]
        for inner in inside.ops.values():
            if inner.kind == "parameter":
                place = int(inner.given)
                users = [user for user in inside.ops.values() if inner.name in user.operands]
                if users and all(user.kind in _SLICES and user.operands[0] == inner.name for user in users):
                    read[place] = sum(user.nbytes for user in users)
                if users and all(user.kind == "dynamic-update-slice" and user.operands[0] == inner.name for user in users):
                    read[place] = 0
                    written += sum(inside.ops[user.operands[1]].nbytes - user.nbytes for user in users)
    return sum(read.values()) + max(written, 0)
