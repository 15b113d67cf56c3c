"""How good it is: fresh episodes, statistics over seeds, comparison of runs, exact small problems."""
