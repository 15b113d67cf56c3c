"""What commands that compile have in common."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """A command that compiles programs and keeps them for the next start, unless told not to."""

    no_cache: bool = False
    """Compile anew: neither keep compiled programs for the next start nor use kept ones."""
