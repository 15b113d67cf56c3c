"""Progress in a notebook: one output that is updated, by IPython's display handles, which every front end and every saved
notebook shows, without widgets."""

import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from rich.console import Console
from rich.filesize import decimal  # noqa: F401
