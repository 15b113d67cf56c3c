"""How whole numbers are written on the command line: 1000000, 1_000_000 or 1e6."""

from typing import Any

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

REGISTRY = ConstructorRegistry()


def read_number(text: str) -> int | float:
    """A number as it was written: an int where it is whole. The settings that get it say what it must be.

    Raises:
        ValueError: it is no number.
    """
    if len(text) > 1000:  # Python refuses to read longer ones
        raise ValueError("too long for a number")
    try:
        return int(text)
    except ValueError:
        number = float(text)
        return int(number) if number.is_integer() else number


@REGISTRY.primitive_rule
def _whole_numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: read_number(words[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )
