"""Settings shared by all tests."""

from hypothesis import HealthCheck, settings

# A loaded machine is no failure: only what is asserted counts.
settings.register_profile(
    "tierce", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("tierce")
