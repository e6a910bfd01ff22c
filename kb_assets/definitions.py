"""Dagster's entry point: `dg dev`, `dg check defs` and `workspace.yaml` load this module.

Needs a kb.toml, and neither a database nor a key: nothing is connected before a step runs.
Without a kb.toml it raises, saying what to do: an empty code location would look as if all
assets and schedules had been removed on purpose.
"""

import dagster as dg

from kb_assets.defs.build import build_definitions
from kb_assets.settings import Settings

defs: dg.Definitions = build_definitions(Settings.load())
