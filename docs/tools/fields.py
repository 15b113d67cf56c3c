"""Fields of a class as a list in the API pages, with the comments beside them as their descriptions: an extension of Griffe."""

import io
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

from griffe import Attribute, Class, Docstring, Extension


class Fields(Extension):
    """Fields and properties are described in the docstring of their class, not below headings of their own."""

    def on_class(self, *, cls: Class, **_: Any) -> None:
        """Append a section `Attributes`, and hide what it describes, and what Python calls by itself."""
        for name, member in cls.members.items():
            if name.startswith("__"):
                member.public = False
        known = {name: member.final_target if member.is_alias else member for name, member in cls.all_members.items()}
        fields = {name: member for name, member in known.items() if member.is_attribute and not name.startswith("_")}
        if not fields:
            return
        lines = "\n".join(f"    {name}: {_description(field)}" for name, field in fields.items())
        said = "" if cls.docstring is None else f"{cls.docstring.value}\n\n"
        cls.docstring = Docstring(f"{said}Attributes:\n{lines}", parent=cls)
        for name in fields.keys() & cls.members.keys():
            cls.members[name].public = False


def _description(field: Attribute) -> str:
    """Its docstring, or the comments alone above it and behind it, in one line."""
    if field.docstring is not None:
        return " ".join(field.docstring.value.split("\n\n")[0].split())
    if field.lineno is None:
        return ""
    comments, above, line = _comments(Path(str(field.filepath))), [], field.lineno - 1
    while line in comments and comments[line][1]:
        above.insert(0, comments[line][0])
        line -= 1
    beside = comments.get(field.endlineno or field.lineno)
    return " ".join([*above, *([beside[0]] if beside else [])])


@cache
def _comments(path: Path) -> dict[int, tuple[str, bool]]:
    """By line: the comment in it, and whether it stands alone."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    return {token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#")) for token in comments}
