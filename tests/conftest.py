"""What every test gets: a world without the user's own settings, and nothing left out unnoticed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from nightly import NIGHTLY

pytest_plugins = [
    "overheard",
    "forked_daemon",
    "real_servers",
    "small_disk",
    "system_calls",
    "user_manager",
]

# The same examples in each run: a red run is then the change's own fault. To hunt for new ones:
# tests/run --hypothesis-profile=explore
_NO_CLOCK = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **_NO_CLOCK)
settings.register_profile("explore", max_examples=2000, **_NO_CLOCK)
settings.load_profile("repeatable")

OWN = ("SPOTOKEND_", "SPOTIPY_", "SPOTIFY_", "XDG_")
STRICT = os.environ.get("SPOTOKEND_NOTHING_LEFT_OUT") == "1"


def pytest_configure(config: pytest.Config) -> None:
    """The marks of these tests."""
    config.addinivalue_line("markers", "nightly: for tests/run --nightly alone; see nightly.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest tests first: one that is begun last is waited for by one worker alone."""
    if not NIGHTLY:
        long = [item for item in items if item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    items.sort(key=lambda item: item.path.parent.name != "system" and item.path.stem != "test_demo")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have counted or measured: ``record_property("figures", "12 kills: ...")``."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    figures = [
        f"{report.nodeid}: {value}"
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "figures"
    ]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write("".join(f"{line}\n" for line in figures))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Under ``tests/run --nothing-left-out`` a skipped test is a failed one."""
    return _nothing_left_out((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """The same for a file that skips itself as a whole."""
    return _nothing_left_out((yield))


def _nothing_left_out(report):
    # An expected failure is reported as skipped, too; it has been run.
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"left out, and nothing may be left out here: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def own_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home and XDG folders that belong to the tests; no proxies, no settings of the user's."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith(OWN) or name.upper().endswith("_PROXY"):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        (home / "run").mkdir(mode=0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
        yield home


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as production does; those of virtual time ask for trio."""
    return "asyncio"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder of its own with a short name: the address of a Unix socket has at most 107 bytes."""
    folder = tempfile.mkdtemp(prefix="spotokend-")
    yield Path(folder)
    shutil.rmtree(folder)
