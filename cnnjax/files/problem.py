"""What `cnnjax verify` finds."""

from typing import NamedTuple


class Problem(NamedTuple):
    """What is wrong in a directory."""

    text: str
    heals: bool  # whether going on with the run or the experiment mends it
