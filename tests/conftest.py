"""How hard property tests try: `default` in `make test`, `fuzz` in each round of `make fuzz`.

Neither judges by the clock: on a busy machine a slow example says nothing about the code.
"""

import os

from hypothesis import HealthCheck, settings

# The gate tries the same examples each time: what it says depends on the change alone. `make fuzz` tries others.
settings.register_profile("default", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "fuzz", deadline=None, max_examples=1_000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
