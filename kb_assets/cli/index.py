"""stub"""

import click
from kb_assets.cli.session import KbCommand


@click.command(cls=KbCommand)
def index() -> int:
    """Bring the index up to date."""
    return 0
