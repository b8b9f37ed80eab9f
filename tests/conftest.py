"""What all tests share: the profile of hypothesis, the header of a session, the thread fixture."""

import contextlib
import io
import os

import pytest
from hypothesis import HealthCheck, settings

_common = {
    "derandomize": True,  # the same examples on every run: a red test stays red
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
}
for _effort, _examples in {"low": 15, "normal": 40, "high": 1000}.items():
    settings.register_profile(_effort, max_examples=_examples, **_common)
settings.load_profile(os.environ.get("CNN_CORE_TEST_EFFORT", "normal"))


def pytest_report_header(config):
    """Say in the header which build is being tested, on how many threads."""
    import cnn_core as cc

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        value = cc.show_config()
    text = printed.getvalue() if value is None else str(value)
    return "cnn_core: " + "; ".join(line.strip() for line in text.splitlines() if line.strip())


@pytest.fixture
def threads():
    """Give ``cc.set_num_threads`` and put the number of threads back afterwards."""
    import cnn_core as cc

    before = cc.get_num_threads()
    yield cc.set_num_threads
    cc.set_num_threads(before)
