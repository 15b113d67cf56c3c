"""Launches, operations and bytes read off programs whose counts are known."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks.depth import DEVICES, Depth, forecast, measured_rate, part_of, target_config
from benchmarks.hlo import Kernel, Op, launches, parse

FUSED = """HloModule jit_f, entry_computation_layout={(f32[8,4]{1,0})->f32[]}

%body (arg.1: (s32[], f32[10,8,4], f32[8,4])) -> (s32[], f32[10,8,4], f32[8,4]) {
  %arg.1 = (s32[], f32[10,8,4]{2,1,0}, /*index=2*/f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg.1), index=0
  %xs = f32[10,8,4]{2,1,0} get-tuple-element(%arg.1), index=1
  %sum = f32[8,4]{1,0} get-tuple-element(%arg.1), index=2
  %add.1 = f32[8,4]{1,0} fusion(%xs, %i, %sum), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/m_step/add"}
  %gemm = (f32[8,8]{1,0}, s8[64]{0}) custom-call(%sum, %sum), custom_call_target="__cublas$gemm", backend_config={}
  ROOT %out = (s32[], f32[10,8,4]{2,1,0}, f32[8,4]{1,0}) tuple(%i, %xs, %add.1)
}

%fused (p.0: f32[10,8,4], p.1: s32[], p.2: f32[8,4]) -> f32[8,4] {
  %p.0 = f32[10,8,4]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,8,4]{2,1,0} dynamic-slice(%p.0, %p.1, %zero, %zero), dynamic_slice_sizes={1,8,4}
  %row = f32[8,4]{1,0} bitcast(%slice)
  %p.2 = f32[8,4]{1,0} parameter(2)
  ROOT %sum.1 = f32[8,4]{1,0} add(%row, %p.2)
}

%cond (arg.2: (s32[], f32[10,8,4], f32[8,4])) -> pred[] {
  %arg.2 = (s32[], f32[10,8,4]{2,1,0}, f32[8,4]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%arg.2), index=0
  ROOT %less = pred[] compare(%j, %j), direction=LT
}

%rare (arg.3: f32[8,4]) -> f32[8,4] {
  %arg.3 = f32[8,4]{1,0} parameter(0)
  %one = f32[8,4]{1,0} negate(%arg.3)
  ROOT %two = f32[8,4]{1,0} negate(%one)
}

%mostly (arg.4: f32[8,4]) -> f32[8,4] {
  ROOT %arg.4 = f32[8,4]{1,0} parameter(0)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %first = (s32[], f32[10,8,4]{2,1,0}, f32[8,4]{1,0}) tuple(%x)
  %loop = (s32[], f32[10,8,4]{2,1,0}, f32[8,4]) while(%first), condition=%cond, body=%body, metadata={op_name="f"}KNOWN
  %after = f32[8,4]{1,0} get-tuple-element(%loop), index=2
  ROOT %end = f32[8,4]{1,0} conditional(%x, %after, %after), branch_computations={%mostly, %rare}
}
"""
TEN = ', backend_config={"known_trip_count":{"n":"10"}}'


def test_loops_count_as_often_as_they_run_and_rare_branches_do_not():
    found = launches(FUSED.replace("KNOWN", TEN))
    assert found.unknown_loops == 0
    counted = {kernel.op.name: (kernel.times, kernel.flops, kernel.nbytes) for kernel in found.kernels}
    assert counted == {
        "add.1": (10, 32, 4 * (32 + 1 + 32 + 32)),  # of ten rows that which it slices, a number, the sum, and what it gives
        "gemm": (10, 2 * 8 * 8 * 4, 4 * 32 * 2 + 4 * 64 + 64),
        "less": (10, 1, 9),
    }
    assert part_of(found.kernels[0]) == "update"
    assert part_of(found.kernels[1]) == "rest"


def test_loops_whose_rounds_depend_on_data_are_told():
    found = launches(FUSED.replace("KNOWN", ""), rounds=3)
    assert found.unknown_loops == 1
    assert {kernel.times for kernel in found.kernels} == {3}


def test_operations_of_a_real_program():
    def many(x, y):
        return jax.lax.fori_loop(0, 7, lambda _, x: x @ y, x)

    text = jax.jit(many).lower(jnp.zeros((3, 5)), jnp.zeros((5, 5))).compile().as_text()
    found = launches(text)
    assert sum(kernel.times * kernel.flops for kernel in found.kernels if kernel.flops >= 150) == 7 * 2 * 3 * 5 * 5
    computations, entry = parse(text)
    assert computations[entry].ops


def test_each_kernel_takes_as_long_as_its_worst_limit():
    kernel = lambda times, flops, nbytes: Kernel(Op("a", "f32[]", "add", "", ""), "", times, flops, nbytes)  # noqa: E731
    device = DEVICES["h100"]._replace(flop_per_s=1e12, bytes_per_s=1e12)
    small = forecast([kernel(100, 1, 1)], device)
    assert (small["forecast_s"], small["launches"], small["bound_by"]) == (pytest.approx(3e-4), 100, "launches")
    assert forecast([kernel(2, 10**9, 1)], device)["forecast_s"] == pytest.approx(2e-3)
    both = forecast([kernel(1, 10**9, 1), kernel(1, 1, 3 * 10**9)], device)
    assert (both["forecast_s"], both["bound_by"]) == (pytest.approx(4e-3), "bytes")


def test_a_gpu_is_described_to_xla():
    text = target_config(DEVICES["a100"])
    assert "major: 8 minor: 0" in text
    assert "core_count: 108" in text
    assert "A100" in text


def test_measured_lines_stand_beside_the_same_settings_only(tmp_path):
    path = tmp_path / "lines.jsonl"
    line = {"benchmark": "throughput", "device": "gpu: NVIDIA H100", "k": 8, "transitions_per_s": 5}
    path.write_text(json.dumps(line) + "\n" + json.dumps(line | {"k": 4, "transitions_per_s": 7}) + "\n")
    assert measured_rate(path, {"k": 8}, "H100") == 5
    assert measured_rate(path, {"k": 8}, "A100") is None
    assert measured_rate(path, {"k": 9}, "H100") is None
    kept = {"env": "halfcheetah_speed", "k": 8, "backend": "mjx"}
    assert measured_rate(Depth().measured, kept | {"line_search": 50}, "H100") == 291424
    assert measured_rate(path, {"k": 8, "line_search": 8}, "H100") is None
