"""Import matplotlib whatever MPLBACKEND says.

Figures here are drawn by Agg, and never through a backend. matplotlib refuses to be imported if MPLBACKEND
names one that is not installed, and a notebook sets it for every program that it starts.
"""

import os
from contextlib import suppress

_named = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib
finally:
    if _named is not None:
        os.environ["MPLBACKEND"] = _named
if _named:
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _named  # for pyplot in a program that also uses it
