"""The settings and fixtures of all tests are in strict.py, which only processes that run tests import."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("strict")
