"""The library, a mixer after another: whatever is tested of one starts from the same equations, forms and text."""

from __future__ import annotations

import pytest

from tests.references.mixers import Entry, every_mixer, programs


@pytest.fixture(scope="session", params=every_mixer(), ids="-".join)
def entry(request: pytest.FixtureRequest) -> Entry:
    """Of session scope, so that pytest runs all tests of a mixer before those of the next."""
    file, mixer = request.param
    return Entry(file, programs(file)[mixer])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks at the texts of all mixers comes when they have been written one by one."""
    items.sort(key=lambda item: item.name == "test_a_linter_finds_nothing_in_any_text")
