"""`--quick` changes the defaults, and flags given beside it win."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import batchnorm_or_dropout
import benchmark_peers
import common
import dropout_ablation
import dropout_cost
import dropout_paper
import pooling_ablation
import pytest
import reproduce_tutorials
import scaling

COMMANDS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (dropout_ablation.DropoutAblation, dropout_ablation.QUICK),
    (pooling_ablation.PoolingAblation, pooling_ablation.QUICK),
    (reproduce_tutorials.ReproduceTutorials, reproduce_tutorials.QUICK),
    (batchnorm_or_dropout.BatchNormOrDropout, batchnorm_or_dropout.QUICK),
    (dropout_paper.DropoutPaper, dropout_paper.QUICK),
    (dropout_cost.DropoutCost, dropout_cost.QUICK),
    (scaling.Scaling, scaling.QUICK),
    (benchmark_peers.BenchmarkPeers, benchmark_peers.QUICK),
]


@pytest.mark.parametrize(("command", "quick"), COMMANDS, ids=[c.__name__ for c, _ in COMMANDS])
def test_flags_beside_quick_win(command: Any, quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(command, "__call__", lambda self: seen.append(self))
    assert {field.name for field in fields(command)} >= quick.keys()
    default = command()
    count = next(name for name in ("epochs", "rounds", "launches") if name in quick)
    for arguments in (["--quick"], ["--quick", f"--{count}", str(getattr(default, count))], []):
        assert common.start(command, quick, "", "x", arguments) == 0
    plain, asked, whole = seen
    assert plain.quick and all(getattr(plain, name) == value for name, value in quick.items())
    assert getattr(asked, count) == getattr(default, count) != quick[count], "even if it is the default"
    assert all(getattr(asked, name) == value for name, value in quick.items() if name != count)
    assert whole == default


def test_a_wrong_flag_is_refused_with_quick(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Command:
        n: int = 3
        quick: bool = False

        def __call__(self) -> None:
            raise AssertionError

    assert common.start(Command, {"n": 1}, "", "x", ["--quick", "--n", "many"]) == 2
    assert "many" in capsys.readouterr().err
