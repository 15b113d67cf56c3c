"""Who is served by whom: `base.py` says what an assigner is and has the plain ones, each other way has a file of its own."""
