"""`portway schema`: the JSON Schema of the configuration, generated from the tables that read it."""

from __future__ import annotations

import argparse
import json

from supervisor.cli.exits import DONE
from supervisor.cli.tables import TABLES
from supervisor.ground.config.schema import json_schema


def run(options: argparse.Namespace) -> int:
    """Exit code 0."""
    print(json.dumps(json_schema(TABLES), indent=2))
    return DONE
