"""`kb metrics`: how everything is, for Prometheus."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kb_assets.cli import exits
from kb_assets.cli.failures import exit_code_of, tell
from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.cli.exposition import HealthCollector
    from kb_assets.knowledge_base.health import Health

_LOOPBACK = "127.0.0.1"


@click.command(cls=KbCommand, short_help="Print metrics for Prometheus, or serve them.")
@click.option(
    "--textfile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write them to this file, whole or not at all: for node_exporter.",
)
@click.option(
    "--serve",
    "port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Answer at http://127.0.0.1:PORT/metrics until Ctrl-C, with a look for each request.",
)
@pass_session
def metrics(session: Session, textfile: Path | None, port: int | None) -> int:
    """Print how everything is as metrics of Prometheus.

    A knowledge base that cannot be looked at is `kb_up 0`, and an error where nobody is served.
    """
    from kb_assets.cli.exposition import HealthCollector, exposition

    if textfile is not None and port is not None:
        raise click.UsageError("--textfile and --serve are two ways: choose one.")
    if port is not None:
        return _serve(session, port)
    collector = HealthCollector(lambda: _look(session))
    if textfile is None:
        sys.stdout.buffer.write(exposition(collector))
    else:
        _write(collector, textfile)
    if collector.error is None:
        return exits.DONE
    tell(collector.error)
    return exit_code_of(collector.error)


def _look(session: Session) -> "Health":
    with session.knowledge_base() as kb:
        return kb.health()


def _write(collector: "HealthCollector", file: Path) -> None:
    from prometheus_client import write_to_textfile

    from kb_assets.cli.exposition import registry_of
    from kb_assets.errors import DiskError

    try:
        write_to_textfile(str(file), registry_of(collector))
    except OSError as error:
        raise DiskError(
            f"{file} cannot be written.",
            why=str(error.strerror or error),
            fix="Name a file in a folder that is there, and yours to write.",
        ) from error


def _serve(session: Session, port: int) -> int:
    """Answer until somebody stops it; the database stays open meanwhile."""
    from prometheus_client import start_wsgi_server

    from kb_assets.cli.exposition import HealthCollector, registry_of
    from kb_assets.cli.output import error_console
    from kb_assets.errors import SettingsError

    with session.knowledge_base() as kb:
        # A script's background job inherits a SIGINT that is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            server, thread = start_wsgi_server(
                port, _LOOPBACK, registry_of(HealthCollector(kb.health))
            )
        except OSError as error:
            raise SettingsError(
                f"Nothing can listen on {_LOOPBACK}:{port}.",
                why=str(error.strerror or error),
                fix="End what listens there, or choose another port.",
            ) from error
        error_console().print(f"http://{_LOOPBACK}:{port}/metrics, until Ctrl-C.", style="dim")
        try:
            thread.join()
        except KeyboardInterrupt:
            server.shutdown()
    return exits.DONE
