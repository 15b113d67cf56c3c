"""Strict JAX for all tests: a silent broadcast or cast is an error here, long before it is a wrong number."""

import gc
import os
import shutil
import signal
import tempfile
import threading
from importlib.metadata import version

# Compiling is what tests wait for; without fusion and optimisation it takes a sixth of the time.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_cpu_parallel_codegen_split_count=1",  # every core has tests of its own
        # Only jaxlib 0.10 knows this one; others end the process over it.
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
        os.environ.get("XLA_FLAGS", ""),
    ]
)
# Hundreds of tests compile the same few programs. They are kept for as long as the tests run, by all workers and the processes
# that these start, in a folder of their own and not in anybody's home.
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers have what their parent chose
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="rmdp_jax-tests-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
os.environ.setdefault("MPLBACKEND", "Agg")  # before matplotlib is imported, and for the processes that tests start

if threading.current_thread() is threading.main_thread():  # what a shell starts in the background ignores Ctrl-C, nohup more
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import sys

import hypothesis
import jax
import pytest
from jax._src.lru_cache import LRUCache

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# What JAX keeps is millions of objects, which are looked through in vain: a fifteenth of the time of the tests.
gc.set_threshold(200_000, 50, 1000)

# The first example of a property compiles, so a deadline by the clock would fail at random.
hypothesis.settings.register_profile("compiles", deadline=None)
hypothesis.settings.load_profile("compiles")


def put_whole(cache, key, value):
    """JAX's own writes to the file itself, which another process may read by then."""
    path = os.path.join(str(cache.path), f"{key}-cache")
    if not os.path.exists(path):
        with tempfile.NamedTemporaryFile(dir=str(cache.path), delete=False) as file:
            file.write(value)
        os.replace(file.name, path)


LRUCache.put = put_whole


def pytest_unconfigure():
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that none of them is left for the end, when other workers have nothing to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


# Where keys are drawn and split: tests of these see that a random key is used once (those that repeat something clone it).
# Looking takes an eighth of the time of a test, so it is left out with the slow tests, and the others run the same programs.
KEYS_USED_ONCE = {
    "test_adapters",
    "test_algorithms",
    "test_assigner_contract",
    "test_backend_contract",
    "test_brax_adapter",
    "test_contextual",
    "test_cover",
    "test_em",
    "test_env_contract",
    "test_episodes",
    "test_evaluate_many",
    "test_exploration",
    "test_given",
    "test_halving_em",
    "test_late_pay",
    "test_limits_training",
    "test_many_agents",
    "test_resource_gathering",
    "test_seeded_em",
    "test_speed",
    "test_speed_training",
    "test_split_and_merge",
    "test_trainer",
    "test_welfare_training",
}


@pytest.fixture(autouse=True, scope="module")
def keys_used_once(request):
    looked_at = request.config.option.markexpr != "not slow" and request.module.__name__.rpartition(".")[2] in KEYS_USED_ONCE
    jax.config.update("jax_debug_key_reuse", looked_at)


@pytest.fixture(autouse=True)
def cache_as_before():
    """Commands with --no-cache switch JAX's cache off for the whole process."""
    enabled = jax.config.values["jax_enable_compilation_cache"]
    yield
    jax.config.update("jax_enable_compilation_cache", enabled)


@pytest.fixture(autouse=True)
def programs_of_their_own(request):
    """Tests that patch something share no compiled program with others, as programs are not found by what was patched."""
    if "monkeypatch" not in request.fixturenames:
        yield
        return
    monkeypatch, forgotten = request.getfixturevalue("monkeypatch"), []

    def forget():
        if programs := sys.modules.get("rmdp_jax.programs"):
            programs.clear_programs()

    def patch(*arguments, plain=monkeypatch.setattr, **options):
        forgotten.append(forget())
        plain(*arguments, **options)

    monkeypatch.setattr = patch
    yield
    if forgotten:
        forget()
