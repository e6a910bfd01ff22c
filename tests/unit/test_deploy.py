"""What docker-compose.yml and deploy/ promise, as far as it shows without a container engine."""

import configparser
import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import yaml

from kb_assets.database import migrate, provision
from kb_assets.database.account import ServerAccount
from kb_assets.database.cluster import embedded_binaries
from kb_assets.database.connect import _LEAST_PGVECTOR, _LEAST_POSTGRES
from kb_assets.database.message_rights import ARCHIVER
from kb_assets.index.vectors import _MOST_MEMORY_BYTES

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
EXAMPLE = (ROOT / "deploy/env.example").read_text(encoding="utf-8")
INIT = ROOT / "deploy/initdb/10-roles.sh"

REQUIRED = re.compile(r"\$\{(\w+):\?")
RAW = yaml.safe_load(COMPOSE)


def interpolated(text: str, values: dict[str, str]) -> str:
    """Fill in variables as compose does."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name, operator, rest = match["name"], match["operator"], match["rest"] or ""
        if values.get(name):
            return values[name]
        if operator == ":?":
            raise KeyError(name)
        return rest

    pattern = r"\$\$|\$\{(?P<name>\w+)(?:(?P<operator>:-|:\?)(?P<rest>[^}]*))?\}"
    return re.sub(pattern, value, text)


SERVICES = yaml.safe_load(
    interpolated(COMPOSE, {name: f"{name.lower()}-value" for name in REQUIRED.findall(COMPOSE)})
)["services"]
LASTING = {name: service for name, service in SERVICES.items() if service["restart"] != "no"}
OURS = {name for name, service in SERVICES.items() if "build" in service}


def size(words: str) -> int:
    number, unit = re.fullmatch(r"(\d+)\s*([kmg])b?", words.lower()).groups()
    return int(number) * 1024 ** (" kmg".index(unit))


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)


# What is started.


def test_every_image_is_pinned_to_one_release():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    stages = {line.split()[-1] for line in instructions("FROM") if " AS " in line}
    foreign = [line.split()[0] for line in instructions("FROM") if line.split()[0] not in stages]
    images = {name: service["image"] for name, service in SERVICES.items()}
    assert {images[name] for name in OURS} == {f"kb-assets:{version}"}
    for image in (*images.values(), *foreign):
        assert re.search(r":v?\d+\.\d+\.\d+(-|$)", image), image


def test_the_database_image_is_one_that_kb_assets_accepts():
    release, major = re.search(r":([\d.]+)-pg(\d+)", SERVICES["postgres"]["image"]).groups()
    assert tuple(map(int, release.split("."))) >= _LEAST_PGVECTOR
    assert int(major) >= _LEAST_POSTGRES


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_limited_and_has_no_rights_to_spare(name):
    service = SERVICES[name]
    assert size(service["deploy"]["resources"]["limits"]["memory"]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user = instructions("USER")[-1] if name in OURS else service["user"]
    if name == "object-store-init":
        assert service["network_mode"] == "none"
    else:
        assert user.split(":")[0] not in ("0", "root")
        assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "login" else [])


@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_service_is_watched_and_started_again(name):
    assert LASTING[name]["restart"] == "unless-stopped"
    assert LASTING[name]["healthcheck"]["test"][0] == "CMD"


def test_who_waits_for_whom_waits_for_something_that_happens():
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            expected = "healthy" if other in LASTING else "completed_successfully"
            assert wait == {"condition": f"service_{expected}"}, (name, other)


def test_there_is_exactly_one_daemon():
    daemons = [s for s in SERVICES.values() if s.get("entrypoint", [""])[0] == "dagster-daemon"]
    assert len(daemons) == 1
    assert "replicas" not in daemons[0]["deploy"]
    assert daemons[0]["container_name"]


def test_ports_are_open_to_this_machine_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:3000:8080"]
    assert RAW["networks"]["backend"]["internal"] is True
    outside = {n for n, s in SERVICES.items() if "outside" in s.get("networks", ["outside"])}
    assert outside - {"object-store-init"} == {"migrate", "code-location", "login"}


def test_the_ui_is_reached_through_the_login_alone():
    caddy = (ROOT / "deploy/Caddyfile").read_text(encoding="utf-8")
    service = SERVICES["login"]
    used = dict(re.findall(r"\{\$(\w+):?([^}]*)\}", caddy))
    assert set(used) - {"UI_UPSTREAM"} == set(service["environment"])
    assert used["UI_UPSTREAM"] == "webserver:3000"
    assert service["ports"][0].split(":")[-1] == used["UI_SITE"].strip(":")
    (site,) = re.findall(r"^\{\$UI_SITE.*?^\}", caddy, re.MULTILINE | re.DOTALL)
    assert re.search(r"basic_auth \{\s+\{\$UI_USER\} \{\$UI_PASSWORD_HASH\}\s+\}", site)
    assert caddy.count("reverse_proxy") == site.count("reverse_proxy") == 1
    assert re.search(r"http://127\.0\.0\.1:2020 \{\s+bind 127\.0\.0\.1\s", caddy)
    assert "http://127.0.0.1:2020/" in service["healthcheck"]["test"]


class Overriding(yaml.SafeLoader):
    """Reads compose's `!override`, which replaces a list where lists are joined."""


Overriding.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def test_tls_asks_for_a_name_and_keeps_its_certificates():
    added = yaml.load((ROOT / "deploy/tls.yml").read_text(), Overriding)["services"]
    assert set(added) == {"login"}
    login = added["login"]
    assert REQUIRED.match(login["environment"]["UI_SITE"])
    assert login["ports"] == ["80:80", "443:443"]
    (kept,) = (volume.split(":")[1] for volume in login["volumes"])
    assert set(login["tmpfs"]) == set(SERVICES["login"]["tmpfs"]) - {kept}
    told = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    assert "-o {0} -g {0}".format(SERVICES["login"]["user"].split(":")[0]) in told


def test_the_workspace_leads_to_the_code_location():
    workspace = yaml.safe_load((ROOT / "deploy/workspace.yaml").read_text())
    server = workspace["load_from"][0]["grpc_server"]
    service = SERVICES[server["host"]]
    assert service["command"][service["command"].index("--port") + 1] == str(server["port"])
    assert str(server["port"]) in service["healthcheck"]["test"]
    # A run that died with its container is found by the name of the machine it ran on.
    assert service["hostname"] == server["host"]


def test_what_is_mounted_is_there():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), source
                assert volume.endswith(":ro"), volume
            else:
                assert source in RAW["volumes"], source


def test_an_index_build_fits_into_the_database_container():
    service = SERVICES["postgres"]
    limit = size(service["deploy"]["resources"]["limits"]["memory"])
    conf = (ROOT / "deploy/postgres.conf").read_text()
    buffers = size(re.search(r"^shared_buffers = (\w+)", conf, re.MULTILINE)[1])
    assert size(service["shm_size"]) > _MOST_MEMORY_BYTES
    assert buffers + size(service["shm_size"]) < limit


def test_pgbackrest_is_off_until_it_is_named_and_fits_the_database():
    assert "pgbackrest" not in COMPOSE
    addition = yaml.safe_load((ROOT / "deploy/pgbackrest.yml").read_text(encoding="utf-8"))
    assert set(addition["services"]) == {"postgres"}
    postgres = addition["services"]["postgres"]
    built_from = re.findall(r"^FROM (.+)$", postgres["build"]["dockerfile_inline"], re.MULTILINE)
    assert built_from == [SERVICES["postgres"]["image"]]
    command = SERVICES["postgres"]["command"]
    assert postgres["command"][: len(command)] == command
    settings = dict(word.split("=", 1) for word in postgres["command"] if "=" in word)
    assert settings["archive_mode"] == "on"
    conf = configparser.ConfigParser()
    conf.read(ROOT / "deploy/pgbackrest.conf")
    (stanza,) = set(conf.sections()) - {"global"}
    assert settings["archive_command"] == f"pgbackrest --stanza={stanza} archive-push %p"
    mounts = [volume.split(":") for volume in SERVICES["postgres"]["volumes"]]
    assert conf[stanza]["pg1-path"] in {inside for _, inside, *_ in mounts}
    for source, inside, *_ in (volume.split(":") for volume in postgres["volumes"]):
        if source.startswith("."):
            assert (ROOT / source).exists()
        else:
            assert source in addition["volumes"]
            assert inside == conf["global"]["repo1-path"]
    told = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--stanza=(\S+)", told)) == {stanza}


def test_what_is_told_of_compose_names_services_that_are_there():
    told = (ROOT / "docs/deploy.md").read_text(encoding="utf-8").replace("\\\n", "")
    commands = re.findall(r"^(?:docker compose|kbc) (?:exec|run|stop) (.+)$", told, re.MULTILINE)
    assert commands
    for command in commands:
        words = [word for word in command.split() if word in SERVICES]
        assert words, command


# Secrets.


def test_no_secret_is_written_down():
    for name, service in RAW["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|KEY", key) and value is not None:
                assert REQUIRED.match(value), (name, key)
    passwords = re.findall(r"://\w+:(.*?)@", COMPOSE)
    assert passwords
    assert all(REQUIRED.match(password) for password in passwords)


def test_nothing_starts_without_its_secrets():
    named = set(REQUIRED.findall(COMPOSE))
    given = dict.fromkeys(named, "x")
    interpolated(COMPOSE, given)
    for name in named:
        with pytest.raises(KeyError, match=name):
            interpolated(COMPOSE, {**given, name: ""})


def test_the_example_names_what_compose_reads():
    passed_on = {k for s in SERVICES.values() for k, v in s.get("environment", {}).items() if not v}
    read = set(re.findall(r"\$\{(\w+)", COMPOSE)) - {"COMPOSE_PROJECT_NAME"} | passed_on
    assert set(re.findall(r"^(?:# )?(\w+)=", EXAMPLE, re.MULTILINE)) == read
    assert set(re.findall(r"^(\w+)=$", EXAMPLE, re.MULTILINE)) == set(REQUIRED.findall(COMPOSE))


# The image.


def test_the_image_is_made_of_what_is_there():
    rules = [r for r in (ROOT / ".dockerignore").read_text().split() if r.startswith(("*", "!"))]
    assert rules[0] == "*", "an allow-list"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = [
        source
        for line in instructions("COPY")
        if "--from" not in line
        for source in line.split()[:-1]
    ]
    assert {"kb_assets", "migrations", "constraints.txt"} <= set(sources)
    assert set(sources) == allowed
    for source in sources:
        assert (ROOT / source).exists(), source
    assert not any(fnmatch.fnmatch(".env", rule) for rule in allowed)


def test_the_image_installs_the_libraries_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    command = re.search(r'python (-c ".*?")\s+>', DOCKERFILE)[1]
    for extras, more in (("", []), ("local", project["optional-dependencies"]["local"])):
        printed = subprocess.run(
            [sys.executable, *shlex.split(command)],
            cwd=ROOT,
            env={**os.environ, "EXTRAS": extras},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert printed.splitlines() == [*project["dependencies"], *more]
    assert "pip install -c constraints.txt -r" in DOCKERFILE


def test_hadolint_has_nothing_to_say():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, ROOT / "deploy/Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_image_runs_kb_as_an_ordinary_user():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert instructions("ENTRYPOINT") == []
    assert instructions("CMD")[-1] == '["kb", "--help"]'
    assert "kb" in scripts
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instructions("USER")[-1])
    assert len(instructions("HEALTHCHECK")) == 1


# The server: started with deploy/postgres.conf and set up by deploy/initdb, as the image does it.

ROLES = {
    "migrator": provision.MIGRATOR,
    "writer": provision.WRITER,
    "reader": provision.READER,
    "caller": provision.CALLER,
    "archiver": ARCHIVER,
    "backup": provision.BACKUP,
    "dagster": provision.DAGSTER,
}
PASSWORDS = {who: f'{who}\'s \\ "secret"' for who in ROLES}


@dataclass(frozen=True)
class Server:
    """A server in a socket's folder that asks everybody for a password."""

    folder: Path
    administrator: str = "postgres"

    @property
    def roles(self) -> dict[str, str]:
        """Who is there.

        A trainee cannot let the writer pass callers' row-level security by, and only who may let
        others read everything makes the role of backups.
        """
        missing = {"postgres": (), "clerk": ("backup",), "trainee": ("backup", "caller")}
        return {who: role for who, role in ROLES.items() if who not in missing[self.administrator]}

    def url(self, database: str, user: str, password: str) -> str:
        return f"postgresql://{user}:{quote(password)}@/{database}?host={self.folder}"

    def connect(self, database: str, who: str, password: str | None = None) -> psycopg.Connection:
        password = PASSWORDS[who] if password is None else password
        return psycopg.connect(self.url(database, ROLES[who], password), autocommit=True)

    def superuser(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.url(database, "postgres", "super"), autocommit=True)

    def set_up(self, **passwords: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(INIT)],
            env={
                "PATH": f"{embedded_binaries()}:{os.environ['PATH']}",
                "PGHOST": str(self.folder),
                "PGUSER": self.administrator,
                "PGPASSWORD": "super",
                **{f"{who.upper()}_PASSWORD": password for who, password in passwords.items()},
            },
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module", params=["postgres", "clerk", "trainee"])
def server(request) -> Iterator[Server]:
    """Set up by the superuser, as in the image, or by the administrator of a managed server.

    The clerk may hand out BYPASSRLS, the trainee may not.
    """
    account = ServerAccount.choose(embedded_binaries())
    folder = Path(tempfile.mkdtemp(prefix="kb-deploy-"))
    account.own(folder)
    folder.chmod(0o711)
    for name, text in (
        ("password", "super"),
        ("postgresql.conf", (ROOT / "deploy/postgres.conf").read_text()),
    ):
        (folder / name).write_text(text)
        account.own(folder / name)
    data = str(folder / "data")
    wanted = shlex.split(SERVICES["postgres"]["environment"]["POSTGRES_INITDB_ARGS"])
    options = f"-c config_file={folder}/postgresql.conf -c listen_addresses= -k {folder}"
    # A test that runs as root is nobody's peer.
    ask = ("--auth-local=scram-sha-256", f"--pwfile={folder}/password", "--no-sync")
    try:
        for command in (
            ("initdb", "-D", data, "-U", "postgres", *wanted, *ask),
            ("pg_ctl", "-D", data, "-l", f"{folder}/data/log", "-w", "-o", options, "start"),
        ):
            done = account.run(*command)
            assert done.returncode == 0, done.stdout
        started = Server(folder, request.param)
        if request.param != "postgres":
            with started.superuser() as connection:
                rights = "createrole createdb bypassrls"
                if request.param == "trainee":
                    rights = "createrole createdb"
                connection.execute(f"create role {request.param} login {rights} password 'super'")
            # Whom a managed server lets install pgvector is its own affair: here, it is there.
            with started.superuser("template1") as connection:
                connection.execute("create extension vector")
        done = started.set_up(**PASSWORDS)
        assert (done.returncode, done.stderr) == (0, "")
        yield started
    finally:
        account.run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def test_postgresql_accepts_every_line_of_its_configuration(server):
    lines = re.findall(r"^(\w+) =", (ROOT / "deploy/postgres.conf").read_text(), re.MULTILINE)
    with server.superuser() as connection:
        found = connection.execute("select name, applied, error from pg_file_settings").fetchall()
        effective = dict(connection.execute("select name, current_setting(name) from pg_settings"))
    # The test keeps it off the network.
    refused = [row for row in found if row[1:] != (True, None) and row[0] != "listen_addresses"]
    assert refused == []
    assert sorted(name for name, *_ in found) == sorted(line.lower() for line in lines)
    assert effective["data_checksums"] == "on"
    assert effective["shared_buffers"] == "768MB"


def test_every_role_that_kb_assets_names_is_there_and_is_ordinary(server):
    query = (
        "select rolname, rolsuper or rolcreaterole or rolcreatedb or rolreplication,"
        " rolbypassrls, rolcanlogin, rolpassword like 'SCRAM-SHA-256$%%'"
        " from pg_authid where rolname = any(%s) order by rolname"
    )
    names = sorted(server.roles.values())
    with server.superuser() as connection:
        found = connection.execute(query, (sorted(ROLES.values()),)).fetchall()
        owners = connection.execute(
            "select datname, pg_get_userbyid(datdba) from pg_database"
            " where datname in ('kb', 'dagster')"
        ).fetchall()
        left = connection.execute(
            "select count(*) from pg_auth_members where not admin_option and"
            f" member = '{server.administrator}'::regrole"
            if server.administrator != "postgres"
            else "select 0"
        ).fetchone()
    passing = {provision.WRITER, provision.BACKUP} if "caller" in server.roles else set()
    assert found == [(name, False, name in passing, True, True) for name in names]
    assert dict(owners) == provision._DATABASES
    assert left == (0,), "the administrator is no member of what it made"


def test_everybody_enters_by_their_own_password_and_where_they_belong(server):
    for database, roles in provision._CONNECT.items():
        for who, role in server.roles.items():
            if role in roles:
                server.connect(database, who).close()
            else:
                with pytest.raises(psycopg.OperationalError, match="permission denied"):
                    server.connect(database, who)
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                server.connect(database, who, "super")


def test_the_migrator_migrates_the_writer_writes_the_reader_reads(server):
    migrate.upgrade(server.url("kb", ROLES["migrator"], PASSWORDS["migrator"]))
    denied = pytest.raises(psycopg.errors.InsufficientPrivilege)
    insert = "insert into kb.source (name, kind, uri) values ('notes', 'files', '.')"
    with server.connect("kb", "writer") as writer:
        migrate.require_current_schema(writer)
        writer.execute(insert)
        with writer.cursor().copy("copy kb.document (source_id, path, slot) from stdin") as copy:
            copy.write_row((1, "a.md", 1))
        writer.execute("create table kb_space.embedding_1 (vector vector(3))")
        writer.execute("insert into kb_space.embedding_1 values ('[1,2,3]')")
        for forbidden in ("alter table kb.source add column x int", "create table kb.t ()"):
            with denied:
                writer.execute(forbidden)
    with server.connect("kb", "reader") as reader:
        assert reader.execute("select name from kb.source").fetchall() == [("notes",)]
        assert reader.execute("select count(*) from kb_space.embedding_1").fetchone() == (1,)
        for forbidden in (insert, "delete from kb.source", "create table kb_space.t ()"):
            with denied:
                reader.execute(forbidden)
    if "backup" in server.roles:
        with server.connect("kb", "backup") as backup:
            backup.execute("set row_security = off")
            assert backup.execute("select name from kb.source").fetchall() == [("notes",)]
            with denied:
                backup.execute(insert)
    if "caller" in server.roles:
        with server.connect("kb", "caller") as caller:
            assert caller.execute("select count(*) from kb.source").fetchone() == (0,)
            with denied:
                caller.execute("select * from kb.query_log")
    with server.connect("dagster", "dagster") as dagster:
        dagster.execute("create table runs (id int)")


def test_run_again_it_keeps_what_is_there_and_sets_the_passwords(server):
    done = server.set_up(**{**PASSWORDS, "reader": "another"})
    assert done.returncode == 0, done.stderr
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        server.connect("kb", "reader")
    server.connect("kb", "reader", "another").close()
    assert server.set_up(**PASSWORDS).returncode == 0


@pytest.mark.parametrize("missing", PASSWORDS)
def test_without_a_password_nothing_is_set_up(missing):
    nowhere = Server(Path("/nonexistent"))
    done = nowhere.set_up(**{**PASSWORDS, missing: ""})
    assert done.returncode != 0
    assert f"{missing.upper()}_PASSWORD" in done.stderr
    assert "psql" not in done.stderr
