"""The `kb` command: each command is a few lines over `KnowledgeBase`.

Exit codes are stable:

::

    0    done: every document is accounted for, in quarantine if it cannot be used
    1    something unexpected happened; KB_DEBUG=1 shows the traceback
    2    the command line is wrong
    3    kb.toml, a KB_* variable or an option is wrong
    4    the database has another schema, or cannot serve us
    5    a source is missing or may not be read, or messages were refused
    6    a provider refuses: embeddings, chat model or reranker
    7    an embedding space is not fit for what was asked
    8    it would cost more than limits.max_cost_per_run_usd
    9    what was asked for does not exist, or is not in the knowledge base (`kb ask`)
    10   documents are in quarantine (only with `kb index --strict`)
    11   the mass-delete guard keeps documents that are gone from their source
    12   documents wait: they are not published yet
    13   a check failed (`kb index`, `kb doctor`, `kb backup drill`), the verdict of `kb eval`, or
         somebody should do something (`kb status --check`)
    14   nothing is published, because retrieval fails (quality.block_publish)
    15   an object of the archive is gone, damaged, or not what its manifest says
    16   the store of the archive or of backups is missing, refuses us, or holds other bytes
    17   a backup is damaged, or not what its manifest says
    18   a backup is not signed, or not with our key
    19   a database cannot be restored into: not empty, too old, or lacking something
    75   a database, store or provider cannot be reached, or a shard is busy: try again
    130  interrupted

Where several apply to a run, the error that stopped it wins, then 11, 12, 13 and 10.
What a command finds goes to standard output: text on a terminal, JSON when piped or with
`--json`. Progress and errors go to standard error.
"""

from kb_assets.cli.main import main

__all__ = ["main"]
