"""Settings that all tests share."""

from hypothesis import settings

# No test asserts a time, hypothesis's own included; derandomised, so that a failure is found again.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")
