"""What `cnnjax verify` finds."""

from typing import NamedTuple


class Problem(NamedTuple):
    """What is wrong in a directory."""

    text: str
    heals: bool  # whether going on with the run or the experiment mends it


def wrong_and_advice(message: str) -> tuple[str, str]:
    """Split a message at its last "; " into what is wrong and what to do; "" if it does not say that."""
    wrong, _, advice = message.rpartition("; ")
    return (wrong, advice) if wrong else (message, "")
