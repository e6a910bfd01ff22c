"""The server from the wheel, shared by processes that start, crash and end as they like."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from kb_assets.database.cluster import Cluster
from kb_assets.database.connect import resolve_urls
from kb_assets.database.embedded import embedded_binaries, leave_embedded, start_embedded
from kb_assets.errors import DatabaseRefusedError, DatabaseUnavailableError
from kb_assets.settings import Settings

# Says where the server is, and uses it until told to end.
USER = """
import sys
from pathlib import Path
from kb_assets.database.embedded import start_embedded
print(start_embedded(Path(sys.argv[1])).url("kb", "kb_writer"), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def home():
    """A home below a folder that, as with pytest's own, nobody else may enter."""
    folder = Path(tempfile.mkdtemp(prefix="kb-home-"))
    try:
        yield folder / "kb"
    finally:
        leave_embedded(folder / "kb")
        assert cluster(folder / "kb").state() is None, "a server was left running"
        shutil.rmtree(folder)


def cluster(home):
    return Cluster(home / "postgres", 16)


def postmaster(home):
    return int((home / "postgres/data/postmaster.pid").read_text().splitlines()[0])


@contextmanager
def user(home, **more):
    """Another process that uses the server; ends cleanly, unless it was killed."""
    command = [sys.executable, "-c", USER, str(home)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **more) as process:
        yield process


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)


def ask(url, question="select current_user"):
    with psycopg.connect(url) as connection:
        return connection.execute(question).fetchone()[0]


def test_a_first_start_makes_databases_roles_and_the_extension(home, monkeypatch):
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.delenv("KB_DAGSTER_DATABASE_URL", raising=False)
    urls = resolve_urls(Settings(home=home))
    assert ask(urls.writer) == "kb_writer"
    assert ask(urls.reader) == "kb_reader"
    assert ask(urls.migrator) == "kb_migrator"
    assert ask(urls.backup) == "kb_backup"
    assert ask(urls.dagster) == "dagster"
    with psycopg.connect(urls.dagster) as connection:
        connection.execute("create table runs (id int)")
    assert ask(urls.reader, "select '[1,2]'::vector(2)::text") == "[1,2]"
    powers = "rolsuper or rolcreaterole or rolcreatedb or rolreplication"
    holding = "select string_agg(rolname, ',' order by rolname) from pg_roles where "
    assert ask(urls.writer, holding + powers) == "postgres"
    # Row-level security would refuse COPY to the writer, and hide rows from backups.
    assert ask(urls.writer, holding + "rolbypassrls") == "kb_backup,kb_writer,postgres"
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        ask(urls.writer.replace("/kb?", "/dagster?"))


def test_nobody_but_the_owner_reaches_the_server(home):
    address = start_embedded(home)
    assert address.socket_folder.stat().st_mode & 0o077 == 0
    assert ask(address.url("kb", "kb_writer"), "show listen_addresses") == ""


def test_starting_again_is_the_same_server(home):
    first = start_embedded(home)
    server = postmaster(home)
    assert start_embedded(home) == first
    assert postmaster(home) == server


def test_the_last_user_stops_the_server_and_not_an_earlier_one(home):
    with user(home) as one:
        url = one.stdout.readline().strip()
        server = postmaster(home)
        with user(home) as two:
            assert two.stdout.readline().strip() == url
        assert postmaster(home) == server
        assert ask(url) == "kb_writer"
    assert cluster(home).state() is None


def test_processes_that_start_at_one_moment_share_one_server(home):
    with user(home) as one, user(home) as two, user(home) as three:
        urls = {process.stdout.readline().strip() for process in (one, two, three)}
        assert len(urls) == 1
        assert ask(urls.pop()) == "kb_writer"
    assert cluster(home).state() is None


def test_a_killed_user_leaves_the_server_to_the_next_who_stops_it(home):
    with user(home) as killed:
        killed.stdout.readline()
        kill(killed)
    server = postmaster(home)
    assert cluster(home).state() == "ready"
    with user(home) as heir:
        heir.stdout.readline()
        assert postmaster(home) == server
    assert cluster(home).state() is None


def test_a_start_that_was_killed_half_way_is_finished_by_the_next(home):
    for step in ("initdb", "pg_ctl", "ready"):
        with user(home) as killed:
            program = psutil.Process(killed.pid)
            while not reached(step, home, program):
                assert killed.poll() is None
            kill(killed)
    start_embedded(home)
    assert ask(start_embedded(home).url("kb", "kb_writer")) == "kb_writer"


def reached(step, home, process):
    if step == "ready":
        return cluster(home).state() == "ready"
    try:
        programs = [Path(child.name()).name for child in process.children(recursive=True)]
    except psutil.NoSuchProcess:  # a child that ended while it was looked at
        return False
    return step in programs


def test_a_crashed_server_is_started_again_with_its_data(home):
    address = start_embedded(home)
    with psycopg.connect(address.url("kb", "kb_migrator")) as connection:
        connection.execute("create table kept as select 7 as n")
    os.kill(postmaster(home), signal.SIGKILL)
    while cluster(home).state() is not None:
        pass
    again = start_embedded(home)
    assert again == address
    assert ask(again.url("kb", "kb_migrator"), "select n from kept") == 7


def test_a_stale_pid_file_whose_number_is_another_process_is_no_server(home):
    with user(home) as process:
        process.stdout.readline()
        pid_file = home / "postgres/data/postmaster.pid"
        lines = pid_file.read_text().splitlines()
    # A process of the server's own account: PostgreSQL would take it for the server.
    account = (home / "postgres/data").stat().st_uid
    with subprocess.Popen(["sleep", "600"], user=account, cwd="/") as stranger:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        try:
            assert ask(start_embedded(home).url("kb", "kb_writer")) == "kb_writer"
        finally:
            stranger.kill()


def test_a_removed_socket_is_made_again(home):
    address = start_embedded(home)
    shutil.rmtree(address.socket_folder)
    assert ask(start_embedded(home).url("kb", "kb_writer")) == "kb_writer"


def test_a_deleted_home_gets_a_new_server_that_the_old_one_cannot_harm(home):
    with user(home) as forgotten:
        forgotten.stdout.readline()
        server = psutil.Process(postmaster(home))
        kill(forgotten)
        shutil.rmtree(home)
        assert ask(start_embedded(home).url("kb", "kb_writer")) == "kb_writer"
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_a_home_with_a_long_path_has_its_socket_in_a_private_folder_elsewhere(home):
    deep = home / ("long-" * 20) / ("path-" * 20)
    try:
        address = start_embedded(deep)
        assert ask(address.url("kb", "kb_writer")) == "kb_writer"
        assert len(str(address.socket_folder)) < 60
        assert address.socket_folder.stat().st_mode & 0o077 == 0
        leave_embedded(deep)
        assert start_embedded(deep) == address
        leave_embedded(deep)
        # Opened by somebody, it is not trusted again.
        address.socket_folder.chmod(0o777)
        assert start_embedded(deep) != address
        shutil.rmtree(address.socket_folder)
        shutil.rmtree(start_embedded(deep).socket_folder)
    finally:
        leave_embedded(deep)


def as_ordinary_user(work):
    """Run something in a child of this process that is an ordinary user, as we may be anyway."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_ordinary_user_runs_the_server_as_itself(home):
    home.mkdir()
    if os.geteuid() == 0:
        home.parent.chmod(0o711)
        os.chown(home, 65534, 65534)

    def work():
        url = start_embedded(home).url("kb", "kb_writer")
        assert ask(url) == "kb_writer"
        assert psutil.Process(postmaster(home)).uids().effective == os.geteuid() != 0
        leave_embedded(home)

    assert as_ordinary_user(work) == 0
    assert cluster(home).state() is None


def test_a_home_of_somebody_else_is_refused(home):
    home.parent.chmod(0o711)
    (home / "postgres").mkdir(parents=True, mode=0o500)

    def work():
        with pytest.raises(DatabaseRefusedError, match="belongs to another account"):
            start_embedded(home)

    assert as_ordinary_user(work) == 0


def test_a_data_folder_of_another_version_is_refused(home):
    start_embedded(home)
    leave_embedded(home)
    with pytest.raises(DatabaseRefusedError, match="PostgreSQL 16, not 18"):
        start_embedded(home, major=18)


def test_a_server_that_cannot_start_says_why(home):
    start_embedded(home)
    leave_embedded(home)
    with pytest.raises(DatabaseUnavailableError, match="no_such_setting"):
        start_embedded(home, options={"no_such_setting": "1"})
    assert ask(start_embedded(home).url("kb", "kb_writer")) == "kb_writer"


def test_options_reach_the_server_quoted(home):
    address = start_embedded(home, options={"cluster_name": "it's mine"})
    assert ask(address.url("kb", "kb_writer"), "show cluster_name") == "it's mine"


@pytest.mark.parametrize("major", [16, 18])
def test_the_programs_are_there(major):
    for program in ("postgres", "pg_dump", "pg_restore", "pg_basebackup"):
        assert os.access(embedded_binaries(major) / program, os.X_OK)


def test_there_are_no_programs_of_another_version():
    with pytest.raises(DatabaseRefusedError, match="embedded PostgreSQL 12"):
        embedded_binaries(12)


def test_the_wheel_says_nothing_of_its_own(home):
    command = [sys.executable, "-W", "error", "-c", USER, str(home)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "pass through" not in line] == []
