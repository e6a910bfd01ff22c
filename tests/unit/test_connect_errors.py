"""What errors of PostgreSQL mean for a run: whether trying again can help."""

import psycopg
import pytest

from kb_assets.database.connect import unavailable_when_lost
from kb_assets.errors import DatabaseRefusedError, DatabaseUnavailableError, KbError


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (psycopg.errors.ProgramLimitExceeded, DatabaseRefusedError),
        (psycopg.errors.StatementTooComplex, DatabaseRefusedError),
        (psycopg.errors.DiskFull, DatabaseUnavailableError),
        (psycopg.errors.AdminShutdown, DatabaseUnavailableError),
        (psycopg.errors.IdleInTransactionSessionTimeout, DatabaseUnavailableError),
        (psycopg.errors.TransactionTimeout, DatabaseUnavailableError),
    ],
)
def test_limits_are_refusals_and_lost_connections_are_unavailability(
    raised: type[psycopg.Error], told: type[KbError]
) -> None:
    with pytest.raises(told, match="the server said so"), unavailable_when_lost():
        raise raised("the server said so")
