"""Lets `python -m kb_assets.cli` stand for `kb`."""

import sys

from kb_assets.cli.main import main

sys.exit(main())
