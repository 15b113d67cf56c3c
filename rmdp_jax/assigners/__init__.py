"""Who is served by whom: `base.py` says what an assigner is, each algorithm has a file of its own."""
