import os
import signal
import subprocess
import sys
import threading

import psycopg
import pytest

from kb_assets.database.connect import Database
from kb_assets.database.lease import shard_lease
from kb_assets.errors import LeaseLostError, NotFoundError, ShardBusyError
from kb_assets.fingerprints import Shard, shards_of

WIKI = Shard("wiki")


@pytest.fixture(autouse=True)
def source(database):
    with database.transaction() as connection:
        connection.execute("insert into kb.source (name, kind, uri) values ('wiki', 'files', '.')")


def lease(database, shard=WIKI, run_id="mine", wait_seconds=0.0, **more):
    return shard_lease(database, shard, run_id=run_id, wait_seconds=wait_seconds, **more)


def test_a_held_shard_is_busy_and_the_error_names_its_holder(database):
    told = r"run first \(since 2\d{3}-.* UTC\)"
    with lease(database, run_id="first"), pytest.raises(ShardBusyError, match=told):
        lease(database, run_id="second").__enter__()
    with lease(database, run_id="second") as second:
        assert (second.shard, second.run_id) == (WIKI, "second")


def test_a_shard_is_free_again_after_its_run_failed(database):
    with pytest.raises(ZeroDivisionError), lease(database):
        raise ZeroDivisionError
    with lease(database):
        pass


def test_waiting_ends_when_the_holder_does(database):
    waits = []
    waiting = threading.Event()
    order = []

    def say(message):
        waits.append(message)
        waiting.set()

    def second():
        with lease(database, run_id="second", wait_seconds=60, on_wait=say):
            order.append("second")

    thread = threading.Thread(target=second)
    with lease(database, run_id="first"):
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert len(waits) == 1
    assert "run first" in waits[0]


def test_a_shard_that_stays_busy_is_given_up(database):
    with (
        lease(database, run_id="first"),
        pytest.raises(ShardBusyError, match=r"within 0\.3 seconds"),
    ):
        lease(database, run_id="second", wait_seconds=0.3).__enter__()


HOLDER = """
import sys, time
from kb_assets.database.connect import Database
from kb_assets.database.lease import shard_lease
from kb_assets.fingerprints import Shard
with shard_lease(Database(sys.argv[1]), Shard("wiki"), run_id="killed", wait_seconds=0):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_holder_frees_the_shard(database, database_urls):
    command = [sys.executable, "-c", HOLDER, database_urls.writer]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ShardBusyError, match="run killed"):
            lease(database).__enter__()
        os.kill(holder.pid, signal.SIGKILL)
    with lease(database, wait_seconds=30) as mine:
        assert mine.fence == 2


def end_lease_session(database_urls):
    """End the session that holds the lock, as a lost network or a restart would."""
    with psycopg.connect(database_urls.writer) as connection:
        ended = connection.execute(
            "select pg_terminate_backend(pid, 10000) from pg_locks where locktype = 'advisory'"
            " and database = (select oid from pg_database where datname = current_database())"
        ).fetchall()
    assert ended == [(True,)]


def test_a_zombie_writes_nothing_after_its_shard_was_taken(database, database_urls):
    with lease(database, run_id="zombie") as zombie:
        end_lease_session(database_urls)
        with database.transaction() as connection:
            zombie.guard(connection)  # nobody took it: it may go on
        with lease(database, run_id="heir") as heir:
            assert heir.fence == zombie.fence + 1
            told = "Run zombie has lost shard wiki"
            with pytest.raises(LeaseLostError, match=told), database.transaction() as connection:
                zombie.guard(connection)
                connection.execute("update kb.source set uri = 'zombie'")
            with database.transaction() as connection:
                heir.guard(connection)
                uri = connection.execute("select uri from kb.source").fetchone()
    assert uri == (".",)


def test_the_heir_waits_for_a_write_that_has_passed_the_guard(database, database_urls):
    with lease(database, run_id="zombie") as zombie:
        end_lease_session(database_urls)
        with database.transaction() as connection:
            zombie.guard(connection)
            with pytest.raises(ShardBusyError, match="a write of its last run has not ended"):
                lease(database, run_id="heir").__enter__()


def test_a_lost_lock_does_not_hide_the_error_of_the_work(database, database_urls):
    with pytest.raises(ZeroDivisionError), lease(database):
        end_lease_session(database_urls)
        raise ZeroDivisionError


def test_disjoint_shards_run_at_once(database):
    one, two, three, _ = shards_of("wiki", 4)
    with lease(database, one) as a, lease(database, two) as b, lease(database, three) as c:
        assert len({a.shard_id, b.shard_id, c.shard_id}) == 3
        assert {a.source_id, b.source_id, c.source_id} == {a.source_id}
        with pytest.raises(ShardBusyError):
            lease(database, two).__enter__()


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (WIKI, Shard("wiki", 3, 4)),
        (Shard("wiki", 3, 4), WIKI),
        (Shard("wiki", 2, 3), Shard("wiki", 3, 4)),
    ],
)
def test_shards_of_two_layouts_keep_each_other_out(database, held, wanted):
    with lease(database, held, run_id="old"), pytest.raises(ShardBusyError, match="run old"):
        lease(database, wanted).__enter__()
    with lease(database, wanted):
        pass


def test_layouts_that_share_no_slot_do_not_disturb_each_other(database):
    with lease(database, Shard("wiki", 1, 3)), lease(database, Shard("wiki", 3, 4)):
        pass


def test_two_overlapping_runs_that_start_together_both_finish(database):
    barrier = threading.Barrier(4)
    inside = []
    most = []

    def work(shard):
        barrier.wait(30)
        with lease(database, shard, wait_seconds=120):
            inside.append(shard)
            most.append(len(inside))
            threading.Event().wait(0.05)
            inside.remove(shard)

    shards = [WIKI, Shard("wiki", 1, 2), Shard("wiki", 2, 3), WIKI]
    threads = [threading.Thread(target=work, args=(shard,)) for shard in shards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert most == [1, 1, 1, 1]


def test_a_shard_needs_its_source(database):
    with pytest.raises(NotFoundError, match="'blog' is not in the database"):
        lease(database, Shard("blog")).__enter__()


def test_leases_in_two_databases_do_not_meet(servers, database):
    with (
        servers(16).new_database() as name,
        Database(servers(16).url(name, "kb_writer")) as other,
    ):
        with other.transaction() as connection:
            connection.execute("insert into kb.source (name, kind, uri) values ('wiki', '', '')")
        with lease(database) as one, lease(other) as two:
            assert one.shard_id == two.shard_id
