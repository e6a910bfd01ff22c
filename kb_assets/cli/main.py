"""The entry point: all commands, and what becomes of what they raise."""

import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from kb_assets.cli import exits
from kb_assets.cli.archive import archive
from kb_assets.cli.ask import ask
from kb_assets.cli.backup import backup
from kb_assets.cli.dev import dev
from kb_assets.cli.doctor import doctor
from kb_assets.cli.erase import erase
from kb_assets.cli.evaluate import evaluate
from kb_assets.cli.explain import explain
from kb_assets.cli.failures import report_error, report_interrupt, report_usage
from kb_assets.cli.index import index
from kb_assets.cli.messages import messages
from kb_assets.cli.metrics import metrics
from kb_assets.cli.plan import plan
from kb_assets.cli.search import search
from kb_assets.cli.session import COMMON_OPTIONS, Session
from kb_assets.cli.setup import init
from kb_assets.cli.space import space
from kb_assets.cli.status import status
from kb_assets.cli.suggest import suggest
from kb_assets.cli.upgrade import upgrade
from kb_assets.cli.why import why

_EPILOG = """\b
Exit codes:
  0 done                         8 would cost too much
  1 unexpected (KB_DEBUG=1)      9 what was asked for does not exist
  2 wrong command line          10 documents in quarantine (index --strict)
  3 wrong settings              11 vanished documents kept by the guard
  4 database not usable         12 documents wait
  5 source or message refused   13 a check failed, or kb eval's verdict
  6 a provider refuses          14 not published: retrieval fails
  7 space not usable            15 an object of the archive is damaged
                                16 a store of archive or backups refuses
                                17 a backup is damaged
                                18 a backup is not signed by us
                                19 not fit to restore into, or not empty
                                75 not reachable or busy: try again
                               130 interrupted

\b
A file .env beside kb.toml is read for KB_*, AWS_*, GOOGLE_*, AZURE_* and the
providers' keys; variables that are set already win.
"""


class _Commands(click.Group):
    """Lists commands in the order in which they are first needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Commands,
    epilog=_EPILOG,
    params=COMMON_OPTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="kb-assets", prog_name="kb")
def kb() -> None:
    """A knowledge base that runs itself: documents in, searchable passages out.

    Start with `kb init`, then `kb index` and `kb search "…"`.
    """


for _command in (
    init,
    doctor,
    plan,
    index,
    search,
    explain,
    ask,
    status,
    metrics,
    why,
    evaluate,
    space,
    messages,
    archive,
    erase,
    backup,
    dev,
    upgrade,
):
    kb.add_command(_command)
evaluate.add_command(suggest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return what to exit with.

    Args:
        arguments: The command line without the program's name; by default the process's own.
    """
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    session = Session()
    try:
        code = kb.main(arguments, prog_name="kb", standalone_mode=False, obj=session)
        sys.stdout.flush()
    except click.ClickException as error:
        return report_usage(error, session)
    except (click.Abort, KeyboardInterrupt):
        return report_interrupt()
    except BrokenPipeError:
        return _leave_quietly()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else exits.UNEXPECTED
    except Exception as error:
        return report_error(error, session)
    return code if isinstance(code, int) else exits.DONE


def _terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
    """End as with Ctrl-C, so that what was started is stopped on the way out."""
    raise KeyboardInterrupt


def _leave_quietly() -> int:
    """Whoever read our output is gone; nothing may be flushed to them at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    return exits.BROKEN_PIPE
