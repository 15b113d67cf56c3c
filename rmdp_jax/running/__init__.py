"""One run, several in one program, or a grid of them, on the host."""
