"""`kb dev`: the database, Dagster's UI and its daemon, until Ctrl-C."""

import signal
import time
from types import FrameType

import click

from kb_assets.cli.session import KbCommand, Session, pass_session


@click.command(cls=KbCommand, short_help="Run the database and Dagster's UI until Ctrl-C.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets others in.")
@pass_session
def dev(session: Session, port: int, host: str) -> int:
    """Run the database and Dagster's UI until Ctrl-C; other commands work beside it."""
    from kb_assets.cli.children import Children
    from kb_assets.cli.output import error_console

    out = error_console()
    with session.knowledge_base() as kb, Children.beside(kb) as children:
        # A script's background job inherits a SIGINT that is ignored, and passes it on.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, _hang_up)
        kb.close()  # Only the server is needed; a fork is safe without the pool's threads.
        children.require_free(host, port)
        out.print("Starting Dagster …", style="dim")
        children.start_code_server()
        children.start_webserver(host, port)
        children.start_daemon()
        children.wait_until_it_answers(host, port)
        out.print(f"Dagster's UI: http://{_named(host)}:{port}", style="bold green")
        out.print(f"Logs: {children.logs}. Ctrl-C stops everything.", style="dim", soft_wrap=True)
        try:
            while True:
                children.require_alive()
                time.sleep(0.5)
        except KeyboardInterrupt:
            out.print("\nStopping …", style="dim")
    out.print("Stopped.", style="dim")
    return 0


def _named(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host


def _hang_up(signal_number: int, frame: FrameType | None) -> None:
    """The terminal was closed: stop as with Ctrl-C."""
    raise KeyboardInterrupt
