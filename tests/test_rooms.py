"""The plan of the house: which room may import which, and nothing in a circle."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rmdp_jax"
# From the bottom up. A module imports from its own room and from rooms before it, also where it imports when it runs.
ROOMS = (
    *(
        "version",
        "types",
        "welfare",
        "keys",
        "errors",
        "limits",
        "paths",
        "terminal",
        "fingerprint",
        "programs",
        "config",
        "env",
        "context",
        "checks",
        "devices",
    ),
    *("policies", "learning", "assigners", "state", "m_step", "info", "trainer"),
    *("evaluation", "plots", "records", "deploy", "running", "envs", "dossier", "commands", "api", "__main__"),
)
# `rmdp_jax.__init__` hands names on, so nobody inside imports from it, but for sub-packages by name.
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(module):
    """`rmdp_jax.learning.ppo` -> its number in `ROOMS`."""
    return ROOMS.index(module.split(".")[1])


def imports_of(path):
    """Modules of the package that the file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("rmdp_jax"))
        elif isinstance(node, ast.ImportFrom) and node.module == "rmdp_jax":
            yield from (f"rmdp_jax.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module.startswith("rmdp_jax."):
                yield node.module


def module_of(path):
    return ".".join(("rmdp_jax", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_import_runs_upwards(path):
    here = room_of(module_of(path))
    for module in imports_of(path):
        assert room_of(module) <= here, f"{module_of(path)} imports {module}, a room above its own"


def test_no_file_imports_itself_by_way_of_others():
    known = {module_of(path): set(imports_of(path)) for path in FILES}
    done = set()

    def visit(module, way):
        assert module not in way, " -> ".join([*way, module])
        if module in known and module not in done:
            for other in sorted(known[module]):
                visit(other, [*way, module])
            done.add(module)

    for module in known:
        visit(module, [])


def test_every_room_has_one_sentence():
    for room in ROOMS:
        if (PACKAGE / room).is_dir() and room not in ("plots", "envs"):
            (text,) = ast.parse((PACKAGE / room / "__init__.py").read_text()).body
            assert isinstance(text.value, ast.Constant), room
