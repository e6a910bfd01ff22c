"""The roles of a backup on another server: which are there, and what they lack."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from kb_assets.backup.manifest import RoleFacts
from kb_assets.database.statements import Statements
from kb_assets.errors import BackupTargetError

_ATTRIBUTES = {
    "login": SQL("login"),
    "bypassrls": SQL("bypassrls"),
    "createdb": SQL("createdb"),
    "createrole": SQL("createrole"),
}
_RIGHTS = {
    "connect": SQL("connect"),
    "temporary": SQL("temporary"),
    "create": SQL("create"),
}

_statements = Statements(Path(__file__).with_name("restoring.sql"))
_DESCRIBE_ROLES = _statements(
    "describe_roles", attributes=Statements.beside(__file__)("role_attributes")
)


def make_roles(
    connection: psycopg.Connection[Any], roles: Sequence[RoleFacts], owners: Collection[str]
) -> tuple[str, ...]:
    """Make the roles that a database lacks, let all of them in, and return which were made.

    A role that is there stays as it is. No password is set: a backup holds none.

    Args:
        connection: In the database, in autocommit mode.
        roles: Those of the backup.
        owners: Who owns something in it: a superuser of another server is no role of the backup.

    Raises:
        BackupTargetError: We may not make them, or not make them owners; it says what an
            administrator must do.
    """
    others = set(owners) - {role.name for role in roles}
    wanted = [*roles, *(RoleFacts(name, ("inherit",), (), ()) for name in sorted(others))]
    there = _described(connection, [role.name for role in wanted])
    missing = [role for role in wanted if role.name not in there]
    statements = [*_creations(missing), *_grants(connection, wanted, there)]
    try:
        with connection.transaction():
            for statement in statements:
                connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        listed = "\n".join(f"    {one.as_string(connection)};" for one in statements)
        raise BackupTargetError(
            "The database lacks roles of the backup, or they may not connect.",
            why=f"We may not change that: {str(error).strip()}.",
            fix=f"Let an administrator run, in that database:\n{listed}",
        ) from error
    _require_ours(connection, owners)
    return tuple(role.name for role in missing)


def _require_ours(connection: psycopg.Connection[Any], owners: Collection[str]) -> None:
    rows = connection.execute(_statements("find_not_ours"), {"names": list(owners)})
    if names := [name for (name,) in rows]:
        user = connection.info.user
        raise BackupTargetError(
            f"Role {user} may not make {', '.join(names)} the owner of what is restored.",
            why="Only a superuser or a member of a role may do that.",
            fix=f"Restore as an administrator, or let one grant {', '.join(names)} to {user}.",
        )


def lacking_roles(
    connection: psycopg.Connection[Any], roles: Sequence[RoleFacts]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what roles lack that they had, and what they have more, in words."""
    there = _described(connection, [role.name for role in roles])
    lacking, more = [], []
    for role in roles:
        found = there.get(role.name)
        if found is None:
            lacking.append(f"There is no role {role.name}.")
            continue
        for what, before, now in (
            ("is", role.attributes, found.attributes),
            ("is a member of", role.member_of, found.member_of),
            ("may, in the database,", role.database_rights, found.database_rights),
        ):
            if gone := sorted(set(before) - set(now)):
                lacking.append(f"Role {role.name} no longer {what} {', '.join(gone)}.")
            if what != "may, in the database," and (new := sorted(set(now) - set(before))):
                more.append(f"Role {role.name} now {what} {', '.join(new)}.")
    return tuple(lacking), tuple(more)


def _described(connection: psycopg.Connection[Any], names: Sequence[str]) -> dict[str, RoleFacts]:
    rows = connection.execute(_DESCRIBE_ROLES, {"names": list(names)})
    return {
        name: RoleFacts(name, tuple(attributes), tuple(member_of), tuple(rights))
        for name, attributes, member_of, rights in rows
    }


def _creations(missing: Sequence[RoleFacts]) -> list[Composed]:
    made = []
    for role in missing:
        words = [word for name, word in _ATTRIBUTES.items() if name in role.attributes]
        words.append(SQL("inherit") if "inherit" in role.attributes else SQL("noinherit"))
        attributes = SQL(" ").join(words)
        made.append(_statements("create_role", role=role.name, attributes=attributes))
    members = [
        _statements("grant_role", role=group, member=role.name)
        for role in missing
        for group in role.member_of
    ]
    return made + members


def _grants(
    connection: psycopg.Connection[Any],
    roles: Sequence[RoleFacts],
    there: dict[str, RoleFacts],
) -> list[Composed]:
    database = connection.info.dbname
    grants = []
    for role in roles:
        has = there[role.name].database_rights if role.name in there else ()
        lacks = [_RIGHTS[right] for right in role.database_rights if right not in has]
        if lacks:
            rights = SQL(", ").join(lacks)
            grants.append(
                _statements("grant_database", rights=rights, database=database, role=role.name)
            )
    return grants
