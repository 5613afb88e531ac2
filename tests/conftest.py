"""Profiles of the property tests: a fixed-seed slice for `make test`, many cases for `make soak`."""

from hypothesis import HealthCheck, settings

settings.register_profile("slice", max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("slice")
