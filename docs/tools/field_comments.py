"""Comments beside the fields of a class as their descriptions in the API pages: an extension of Griffe."""

import io
import re
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

from griffe import Attribute, Docstring, Extension


@cache
def _comments(path: Path) -> dict[int, tuple[str, bool]]:
    """By line: the comment in it, and whether it stands alone."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    return {token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#")) for token in comments}


class FieldComments(Extension):
    """What stands behind a field, or alone above it, where it has no docstring."""

    def on_attribute(self, *, attr: Attribute, **_: Any) -> None:
        """Give a field of a class its comment."""
        if attr.docstring is not None or attr.parent is None or not attr.parent.is_class or attr.lineno is None:
            return
        comments = _comments(Path(str(attr.filepath)))
        above, line = [], attr.lineno - 1
        while line in comments and comments[line][1]:
            above.insert(0, comments[line][0])
            line -= 1
        beside = comments.get(attr.endlineno or attr.lineno)
        text = " ".join([*above, *([beside[0]] if beside else [])])
        if text and not re.match(r"noqa|type:|fmt:", text):
            attr.docstring = Docstring(text, parent=attr)
