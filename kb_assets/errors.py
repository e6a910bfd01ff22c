"""Every error the package raises on purpose, in one tree.

Permanent errors come back the same until somebody changes something; transient
ones may go away when the same thing is tried again.

::

    KbError
    ├── PermanentError
    │   ├── SettingsError          kb.toml, KB_* or a command's options are wrong
    │   ├── SchemaError            the database's schema is not the one this code needs
    │   ├── DatabaseRefusedError   the database is there, but cannot serve us
    │   ├── SourceError            a source is not there, or not ours to read
    │   ├── DocumentError          one document cannot be read, parsed or split
    │   ├── MessageRefusedError    one message cannot be taken in
    │   ├── ProviderRefusedError   a provider or model will never answer this request
    │   ├── TextRefusedError       one text has no usable vector
    │   ├── SpaceError             an embedding space is not fit for what was asked
    │   ├── CostLimitError         going on would spend more than was allowed
    │   ├── QualityError           retrieval fails its golden questions: nothing more is published
    │   ├── ObjectStoreError       a store is not there, not ours, or holds other bytes
    │   ├── ArchiveCorruptError    an archived object is not what its manifest says
    │   ├── BackupCorruptError     a backup is damaged, or not whole
    │   ├── BackupUntrustedError   a backup is not signed, or not by us
    │   ├── BackupTargetError      a database cannot be restored into
    │   ├── AlertRefusedError      the webhook for alerts refuses, or is none
    │   └── NotFoundError          what was asked for does not exist
    └── TransientError
        ├── DatabaseUnavailableError
        ├── SourceUnavailableError
        ├── ProviderUnavailableError
        ├── ObjectStoreUnavailableError
        ├── ShardBusyError         another run holds the shard
        ├── DiskError              the local disk is full, or cannot be written
        ├── ArchiveBusyError       another run archives, restores or erases in that month
        ├── BackupBusyError        another backup is being made
        ├── AlertNotDeliveredError the webhook for alerts did not take a message
        ├── ArchiveStaleError      rows changed between their copy and their deletion
        └── LeaseLostError         another run took over; nothing more was written
"""

from typing import Any, ClassVar


class KbError(Exception):
    """What happened, why, and what to do about it.

    Attributes:
        what: What happened, in one sentence.
        why: The cause, if it is known.
        fix: What the user can do.
        exit_code: What the `kb` command exits with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what = what
        self.why = why
        self.fix = fix
        super().__init__(" ".join(part for part in (what, why, fix) if part))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[KbError], args: tuple[str, ...], fields: dict[str, str]) -> KbError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class PermanentError(KbError):
    """Comes back the same until something is changed."""


class TransientError(KbError):
    """May go away when the same thing is tried again."""

    exit_code = 75


class SettingsError(PermanentError, ValueError):
    """`kb.toml`, a `KB_*` variable or an option is wrong."""

    exit_code = 3


class SchemaError(PermanentError):
    """The database's schema is behind or ahead of this code."""

    exit_code = 4


class DatabaseRefusedError(PermanentError):
    """The database answers, but cannot be used: too old, no pgvector, a pooler, no rights."""

    exit_code = 4


class SourceError(PermanentError):
    """A source is missing, or outside what may be read."""

    exit_code = 5


class DocumentError(PermanentError):
    """One document cannot be used; it goes to quarantine and the others go on.

    Attributes:
        reason: A stable word for the cause, such as `binary` or `too_large`.
    """

    exit_code = 5

    def __init__(self, reason: str, what: str, *, why: str = "", fix: str = "") -> None:
        self.reason = reason
        super().__init__(what, why=why, fix=fix)


class MessageRefusedError(PermanentError):
    """One message cannot be taken in.

    Attributes:
        reason: A stable word for the cause, such as `naive_time` or `id_taken`.
    """

    exit_code = 5

    def __init__(self, reason: str, what: str, *, why: str = "", fix: str = "") -> None:
        self.reason = reason
        super().__init__(what, why=why, fix=fix)


class ProviderRefusedError(PermanentError):
    """A provider refuses: wrong key, unknown model, wrong dimensions."""

    exit_code = 6


class TextRefusedError(PermanentError):
    """One text has no usable vector; it goes to quarantine and the others go on.

    Attributes:
        reason: A stable word for the cause, such as `too_long` or `zero_vector`.
    """

    exit_code = 6

    def __init__(self, reason: str, what: str, *, why: str = "", fix: str = "") -> None:
        self.reason = reason
        super().__init__(what, why=why, fix=fix)


class SpaceError(PermanentError):
    """An embedding space is incomplete, unknown, or not in the state that was needed."""

    exit_code = 7


class CostLimitError(PermanentError):
    """Going on would spend more than `max_cost_per_run_usd`."""

    exit_code = 8


class QualityError(PermanentError):
    """The last evaluation failed, and `quality.block_publish` keeps readers at what they have."""

    exit_code = 14


class ArchiveCorruptError(PermanentError):
    """An object of the archive is damaged, missing, or not what its manifest says."""

    exit_code = 15


class BackupCorruptError(PermanentError):
    """A backup is damaged, incomplete, or not what its manifest says."""

    exit_code = 17


class BackupUntrustedError(PermanentError):
    """A backup is not signed, or signed with another key: its content may be anybody's."""

    exit_code = 18


class BackupTargetError(PermanentError):
    """A database cannot be restored into: it is not empty, or lacks a role or an extension."""

    exit_code = 19


class ObjectStoreError(PermanentError):
    """The store of the archive or of backups is missing, refuses us, or holds other bytes."""

    exit_code = 16


class AlertRefusedError(PermanentError):
    """The webhook for alerts will take no message before somebody changes something."""


class NotFoundError(PermanentError):
    """What was asked for does not exist."""

    exit_code = 9


class DatabaseUnavailableError(TransientError):
    """The database cannot be reached, or the connection was lost."""


class SourceUnavailableError(TransientError):
    """The source's store cannot be reached right now."""


class ProviderUnavailableError(TransientError):
    """A provider cannot be reached, went on failing after retries, or broke off."""


class ObjectStoreUnavailableError(TransientError):
    """The store that the archive lies in cannot be reached, or what it did is not known."""


class ShardBusyError(TransientError):
    """Another run holds the shard and did not finish within the time allowed."""


class DiskError(TransientError):
    """The local disk is full, or cannot be written."""


class ArchiveBusyError(TransientError):
    """Another run is at work in that month of the archive."""


class BackupBusyError(TransientError):
    """Another backup of this database is being made."""


class AlertNotDeliveredError(TransientError):
    """The webhook for alerts did not take a message.

    Attributes:
        pause_seconds: How long it asked to be left alone.
    """

    def __init__(self, what: str, *, why: str, fix: str, pause_seconds: float = 0.0) -> None:
        self.pause_seconds = pause_seconds
        super().__init__(what, why=why, fix=fix)


class ArchiveStaleError(TransientError):
    """Rows changed after they were copied; nothing was deleted, and they are copied again."""


class LeaseLostError(TransientError):
    """Another run took over what this one held; this one wrote nothing more."""
