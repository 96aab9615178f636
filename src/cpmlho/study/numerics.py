"""Raised by hand when a change alters the numbers of runs; a golden test fails if they change and it was not raised.

1: the engine of the first two editions.
"""

NUMERICS = 2
