"""A database that was restored to a point in time, by WAL, is proven by `kb backup drill`."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from kb_assets.database.account import ServerAccount
from kb_assets.database.cluster import ADMINISTRATOR, Cluster, ServerAddress
from kb_assets.database.embedded import embedded_binaries
from kb_assets.database.provision import provision
from tests.acceptance.command_line import CommandLine, variables_of, write
from tests.conftest import Server


@dataclass(frozen=True)
class Archiving:
    """A server that archives its WAL, and a base backup of it; as pgBackRest would have them."""

    root: Path
    account: ServerAccount
    address: ServerAddress

    @property
    def wal(self) -> Path:
        return self.root / "wal"

    def ask(self, statement: str) -> object:
        with psycopg.connect(self.address.url("kb", ADMINISTRATOR), autocommit=True) as connection:
            done = connection.execute(statement.encode())
            row = done.fetchone() if done.description else None
        return row and row[0]

    def base_backup(self) -> None:
        where = ("-h", str(self.address.socket_folder), "-U", ADMINISTRATOR)
        into = ("-D", str(self.root / "base"), "-X", "none", "--checkpoint=fast")
        done = self.account.run("pg_basebackup", *where, *into)
        assert done.returncode == 0, done.stdout

    def archive_all(self) -> None:
        segment = str(self.ask("select pg_walfile_name(pg_switch_wal())"))
        give_up = time.monotonic() + 60
        while not (self.wal / segment).exists():
            assert time.monotonic() < give_up
            time.sleep(0.1)

    def restored(self, name: str, moment: datetime) -> Cluster:
        """Return a server beside, that has what was committed until then."""
        cluster = Cluster(self.root / name, 16)
        cluster.make_folder()
        shutil.copytree(self.root / "base", cluster.data)
        (cluster.data / "recovery.signal").touch()
        for path in (cluster.data, *cluster.data.rglob("*")):
            self.account.own(path)
        cluster.ensure_running(
            {
                "archive_mode": "off",
                "restore_command": f"cp {self.wal}/%f %p",
                "recovery_target_time": moment.isoformat(),
                "recovery_target_action": "promote",
                "hot_standby": "off",
            }
        )
        return cluster


@pytest.fixture
def archiving() -> Iterator[Archiving]:
    root = Path(tempfile.mkdtemp(prefix="kb-wal-"))
    root.chmod(0o711)
    account = ServerAccount.choose(embedded_binaries())
    for folder in ("wal", "base"):
        account.own(root / folder)
    cluster = Cluster(root / "first", 16)
    cluster.make_folder()
    try:
        address = cluster.ensure_running(
            {"archive_mode": "on", "archive_command": f"cp %p {root}/wal/%f", "fsync": "off"}
        )
        provision(address)
        yield Archiving(root, account, address)
    finally:
        for name in ("first", "before", "after"):
            Cluster(root / name, 16).stop()
        shutil.rmtree(root)


def test_a_drill_proves_what_was_restored_to_a_point_in_time(
    archiving: Archiving, tmp_path: Path
) -> None:
    server = Server(archiving.address)
    variables = {**variables_of(server.urls("kb")), "KB_BACKUP_KEY": "sixteen characters or more"}
    variables["KB_DAGSTER_DATABASE_URL"] = server.url("dagster", "dagster")
    kb = CommandLine(tmp_path, variables)
    kb.must("init")
    kb.must("upgrade")
    write(tmp_path / "documents", owls="# Owls\n\nOwls are birds that hunt at night.")
    kb.must("index")
    kb.must("backup", "run")
    archiving.base_backup()
    write(tmp_path / "documents", herons="# Herons\n\nHerons stand in shallow water.")
    kb.must("index")
    before = archiving.ask("select clock_timestamp()")
    archiving.ask("alter table kb.chunk drop constraint chunk_pkey cascade")
    archiving.ask("delete from kb.chunk where ordinal = 0")
    after = archiving.ask("select clock_timestamp()")
    archiving.ask("create table kb.late ()")
    archiving.archive_all()
    assert isinstance(before, datetime)
    assert isinstance(after, datetime)

    good = archiving.restored("before", before).ensure_running({})
    found = kb.must("backup", "drill", "--from-url", good.url("kb", "kb_backup"))
    assert (found["passed"], found["target"]) == (True, "url")
    assert "kb.document" in " ".join(found["notes"]), "a document came after the backup"
    with psycopg.connect(good.url("kb", "kb_reader")) as connection:
        assert connection.execute("select count(*) from kb.document").fetchone() == (2,)

    bad = archiving.restored("after", after).ensure_running({})
    found = kb.must("backup", "drill", "--from-url", bad.url("kb", "kb_backup"), code=13)
    assert "chunk_pkey" in " ".join(found["failures"])
    assert "kb.late" not in " ".join(found["failures"])
