"""The commands: dataclasses of their arguments, each with `run`, which imports what is heavy when it runs."""
