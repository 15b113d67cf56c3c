"""What a reviewer reads before a budget of policies goes into use: one self-contained page, and the same as JSON."""
