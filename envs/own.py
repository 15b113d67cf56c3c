"""Tasks of a user's own by name, ``package.module:make`` or ``path/to/file.py:make``, as the built-in ones by theirs.

The function returns (Env, Population). It gets `n` and `seed` where it takes them; its other arguments are options of the task.
A module may offer settings for it: an attribute `preset`, a `TrainConfig`.

The folder of a run names such a function, and whoever loads the folder calls it. So that no config.json can call anything else
on a machine, only functions are taken whose own module mentions rmdp_jax.
"""

import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints
from zlib import crc32

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import ConfigError, flag, in_line, shown

PLAIN = (int, float, str, bool)  # types of arguments that are flags on the command line
GIVEN = ("n", "seed")  # arguments with flags of their own
_OURS = ("name", "people_seed", "context")  # arguments of `rmdp_jax.envs.make`, which makes the task of a run again
_NAME = re.compile(r"(?P<module>.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)")


def is_own(name: object) -> bool:
    """Whether `name` has the form of a task of a user's own."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def full_name(name: str) -> str:
    """`name` as it is found from any folder: with the full path of its file, also of a module that lies in the present folder.

    The name of any other task stays as it is.
    """
    module, _, function = name.rpartition(":")
    if not is_own(name):
        return name
    here = Path(f"{module}.py").resolve()
    if module.endswith(".py"):
        return f"{_file(module)}:{function}"
    return f"{here}:{function}" if _module(name, module).__file__ == str(here) else name


def find_maker(name: str) -> Callable[..., Any]:
    """The function that a name means.

    Raises:
        ConfigError: there is no such module, file or function, or importing it fails, or it is not written for rmdp_jax.
    """
    module, _, function = name.rpartition(":")
    found = _module(name, module)
    if not hasattr(found, function):
        known = [other for other, value in vars(found).items() if inspect.isfunction(value) and not other.startswith("_")]
        has = f" (it has {in_line(', '.join(known))})" if known else ""
        raise ConfigError(f"env = {shown(name)}: {module} has no {function}{has}; write def {function}(n=..., seed=0) in it")
    maker = getattr(found, function)
    if not callable(maker):
        raise ConfigError(
            f"env = {shown(name)}: {function} is a {type(maker).__name__}, must be a function that returns (Env, Population)"
        )
    _check_written_for_us(name, maker)
    return maker


def make_own(name: str, given: dict[str, Any]) -> tuple[Env, Population]:
    """What the function of a name returns for the arguments `given`; n and seed are left out where it takes none.

    Raises:
        ConfigError: as of `find_maker`; or it lacks an argument, or does not take one, or returns something else.
    """
    maker = find_maker(name)
    if taken := [argument for argument in _OURS if argument in _options(maker)]:
        raise ConfigError(f"{taken[0]}: is an argument of rmdp_jax.envs.make, and cannot be one of {name} too; rename it there")
    arguments = _arguments(name, maker, given)
    try:
        made = maker(**arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"env = {shown(name)}: raised {type(error).__name__} ({in_line(error)})") from error
    fits = isinstance(made, tuple | list) and len(made) == 2
    if not (fits and isinstance(made[0], Env) and isinstance(made[1], Population)):
        kinds = ", ".join(type(one).__name__ for one in made) if isinstance(made, tuple | list) else type(made).__name__
        raise ConfigError(f"env = {shown(name)}: returns ({kinds}), must be (Env, Population)")
    env, population = made
    known = _options(maker).items()  # with defaults, so that a run stays as it was when they are changed
    plain = {option: default for option, (kind, default) in known if kind is not None and isinstance(default, PLAIN)}
    options = {**plain, **arguments, **({"n": population.n} if takes(maker, "n") else {})}
    options = json.loads(json.dumps(options))  # as the folder of a run holds them
    return env._replace(spec=env.spec._replace(options=options, make=full_name(name))), population


class Option(NamedTuple):
    """An argument of a function, other than n and seed."""

    kind: type | None  # int, float, str or bool, by its annotation or else its default; None of another type
    default: Any  # inspect.Parameter.empty where it has none


def own_options(name: str) -> dict[str, Option]:
    """The arguments of the function of a name that are options: all but n and seed."""
    return _options(find_maker(name))


def _options(maker: Callable[..., Any]) -> dict[str, Option]:
    try:
        hints = get_type_hints(maker)
    except Exception:  # of names that are known to a type checker alone; defaults tell the types then
        hints = {}
    usable = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(maker).parameters
    known = {key: of for key, of in parameters.items() if key not in GIVEN and of.kind in usable}
    return {key: Option(_plain_kind(hints.get(key), of.default), of.default) for key, of in known.items()}


def _plain_kind(hint: Any, default: Any) -> type | None:
    kinds = [hint, *(kind for kind in PLAIN if hint in (kind | None, None | kind)), type(default)]
    return next((kind for kind in kinds if kind in PLAIN), None)


def own_preset(name: str) -> tuple[TrainConfig, str]:
    """Settings for a task of one's own, and where they come from, in words.

    Raises:
        ConfigError: as of `find_maker`, or `preset` of the module is no TrainConfig.
    """
    module = name.rpartition(":")[0]
    offered = getattr(_module(name, module), "preset", None)
    if offered is None:
        return TrainConfig(), f"settings are TrainConfig's own, tuned for no task; a TrainConfig `preset` in {module} is taken"
    if not isinstance(offered, TrainConfig):
        raise ConfigError(f"preset of {module} = {shown(offered)}: must be a TrainConfig(...)")
    return offered, f"settings are `preset` of {module}"


def takes(maker: Callable[..., Any], argument: str) -> bool:
    """Whether a function has an argument of this name, or takes any."""
    parameters = inspect.signature(maker).parameters
    return argument in parameters or any(of.kind is inspect.Parameter.VAR_KEYWORD for of in parameters.values())


def _arguments(name: str, maker: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(maker).parameters
    known = ", ".join(option for option in parameters) or "no arguments"
    arguments = {}
    options = _options(maker)
    for argument, value in given.items():
        _check_plain(argument, value)
        if takes(maker, argument):
            option = options.get(argument, Option(None, None))
            arguments[argument] = _of_kind(name, argument, _several(value, option.default), option.kind)
        elif argument != "seed":  # which everybody gives; where nothing is drawn there is none
            raise ConfigError(f"{argument} = {shown(value)}: {name} takes {known}")
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for argument, of in parameters.items():
        if argument not in arguments and of.default is inspect.Parameter.empty and of.kind in plain:
            flag = "--" + argument.replace("_", "-")
            raise ConfigError(f"{argument}: {name} has no default for it; give {flag}, or write one into the function")
    return arguments


def _several(value: Any, default: Any) -> Any:
    """A list or tuple as a list where the default is one, else as a tuple: as it is given, and as a run's folder gives it."""
    if not isinstance(value, list | tuple):
        return value
    return list(value) if isinstance(default, list) else tuple(value)


def _check_plain(argument: str, value: Any) -> None:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        rule = "numbers, words, flags, or lists of them, which the folder of a run can hold"
        raise ConfigError(f"{argument} = {shown(value)}: must be {rule}") from None


def _of_kind(name: str, argument: str, value: Any, kind: type | None) -> Any:
    """A number, a flag or a word as its argument wants it."""
    if kind is bool and value is not None:
        return flag(argument, value)
    if kind is str and value is not None and not isinstance(value, str):
        raise ConfigError(f"{argument} = {shown(value)}: must be a word, as {name} has it")
    if kind not in (int, float) or isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    if isinstance(value, str) or (kind is int and isinstance(value, float)):
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{argument} = {shown(value)}: must be {wanted}, as {name} has it")
    return kind(value)


def _module(name: str, module: str) -> ModuleType:
    """The module of a name, imported; what lies in the present folder is found too, as by `python -m`."""
    try:
        return _import_file(_file(module)) if module.endswith(".py") else _import_module(module)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            way_out = "start from the folder that holds it, put that on PYTHONPATH, install it, or give path/to/file.py:make"
            raise ConfigError(f"env = {shown(name)}: there is no module {error.name}; {way_out}") from None
        raise ConfigError(f"env = {shown(name)}: importing it failed: {in_line(error)}; install that") from error
    except Exception as error:
        raise ConfigError(
            f"env = {shown(name)}: importing it raised {type(error).__name__} ({in_line(error)}); `python -c 'import "
            f"{Path(module).stem if module.endswith('.py') else module}'` shows where"
        ) from error


def _import_module(module: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(module)


def _file(text: str) -> Path:
    """The file that a name means, with all links resolved."""
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"env = {shown(text)}: there is no such file; give the path of a Python file, as in my_env.py:make")
    return path


def _import_file(path: Path) -> ModuleType:
    """A file as a module, once; files beside it can be imported by it, as by `python FILE`."""
    called = f"rmdp_jax_task_{path.stem}_{crc32(bytes(path)):x}"
    if called in sys.modules:
        return sys.modules[called]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(called, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module  # dataclasses look themselves up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[called]
        raise
    return module


def _check_written_for_us(name: str, maker: Any) -> None:
    """Raise `ConfigError` unless the module in which a function is written mentions rmdp_jax, and is none of rmdp_jax's own."""
    function = getattr(maker, "func", maker)  # of a partial
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    try:
        written = "" if module is None else inspect.getsource(module)
    except (OSError, TypeError):  # built in, or without its source
        written = ""
    if "rmdp_jax" not in written or module is None or module.__name__.partition(".")[0] == "rmdp_jax":
        raise ConfigError(
            f"env = {shown(name)}: the module of this function does not mention rmdp_jax, so it makes no task; the folder of a "
            "run may not call just anything. Import Env and Population there, or give load_run(folder, make) in Python"
        )
