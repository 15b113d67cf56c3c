"""The version of the package, which also `pyproject.toml` has from here."""

__version__ = "0.2.0"
