"""Whether a database is the one that was backed up: made the same, and answers the same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kb_assets.backup.contents import count_tables, read_sequences
from kb_assets.backup.indexes import index_faults, verbatim
from kb_assets.backup.loading import Result, row_differences, timed
from kb_assets.backup.manifest import Manifest
from kb_assets.backup.questions import Questions, ask_again, differences, read_questions
from kb_assets.backup.roles import lacking_roles
from kb_assets.backup.snapshot import Snapshot, open_snapshot
from kb_assets.backup.structure import structure_differences
from kb_assets.database.migrate import current
from kb_assets.database.statements import Statements

_MOST_NAMED = 5

_statements = Statements(Path(__file__).with_name("restoring.sql"))


@dataclass(slots=True)
class Findings:
    """What a comparison found.

    Attributes:
        failures: What is wrong.
        notes: What should be known, but is not wrong.
        seconds: How long each part took.
    """

    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, step: str, look: Callable[[], tuple[tuple[str, ...], tuple[str, ...]]]) -> None:
        """Take in what a part found."""
        failures, notes = self.timed(step, look)
        self.failures += failures
        self.notes += notes

    def timed(self, step: str, work: Callable[[], Result]) -> Result:
        """Do something, and note how long it took."""
        return timed(self.seconds, step, work)

    def merge(self, others: "Findings") -> None:
        """Take in what another comparison found."""
        self.failures += others.failures
        self.notes += others.notes
        self.seconds.update(others.seconds)


def compare(manifest: Manifest, folder: Path, url: str, *, is_copy: bool) -> Findings:
    """Compare a database with a backup.

    A copy must be the same in everything; its rows were compared when it was restored. A
    database of another moment, such as one that was restored to a point in time, may hold other
    rows and answer otherwise, which is told; it must be made the same, and be whole.

    Args:
        manifest: The backup.
        folder: Its files; the definitions and the questions are enough.
        url: The database, as a role that sees every row.
        is_copy: Whether it was restored from this backup.

    Raises:
        DatabaseRefusedError: The role does not see everything, or a program is missing.
        DatabaseUnavailableError: The database cannot be reached, or was lost.
        BackupCorruptError: The questions cannot be read.
    """
    found = Findings()
    found.add("definitions", lambda: structure_differences(manifest, folder, url, is_copy=is_copy))
    with open_snapshot(url) as snapshot:
        connection = snapshot.connection
        if (revision := current(connection)) != manifest.revision:
            found.failures += (f"The revision is {revision}, not {manifest.revision}.",)
        found.add("roles", lambda: lacking_roles(connection, manifest.roles))
        found.add("sequences", lambda: _sequences(manifest, snapshot, is_copy))
        if not is_copy:
            found.add("checksums", lambda: ((), _rows(manifest, snapshot)))
        found.add("index checks", lambda: index_faults(snapshot))
        questions = read_questions(folder)
        found.add("questions", lambda: _answers(questions, snapshot, is_copy))
    return found


def _sequences(
    manifest: Manifest, snapshot: Snapshot, is_copy: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    connection = snapshot.connection
    wrong = []
    if is_copy:
        now = {(one.schema, one.name): one for one in read_sequences(connection)}
        wrong += [
            f"Sequence {one.schema}.{one.name} stands elsewhere than in the backup."
            for one in manifest.sequences
            if now.get((one.schema, one.name)) != one
        ]
    for sequence, schema, table, column, is_rising in connection.execute(
        _statements("find_owned_sequences")
    ).fetchall():
        overtaken = _statements(
            "find_overtaken", sequence=verbatim(sequence), column=column, table=(schema, table)
        )
        if is_rising and connection.execute(overtaken).fetchone() == (True,):
            wrong.append(f"Sequence {sequence} would give values that {schema}.{table} has.")
    return tuple(wrong), ()


def _rows(manifest: Manifest, snapshot: Snapshot) -> tuple[str, ...]:
    counted = count_tables(snapshot, snapshot.tables)
    different = row_differences(manifest.tables, counted)
    if not different:
        return ("Every table holds the rows of the backup.",)
    return (f"Other rows than in the backup, as of another moment: {_listed(different)}.",)


def _answers(
    questions: Questions, snapshot: Snapshot, is_copy: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    notes = (questions.note,) if questions.note else ()
    if not questions.asked:
        return (), notes
    now = ask_again(snapshot.connection, questions)
    different = differences(questions, now)
    if not different:
        return (), notes
    told = f"{len(different)} answers differ: {_listed(different)}."
    if is_copy or not any(one.nearest or one.worded for one in now.asked):
        return (f"{told} {now.note}".strip(),), notes
    return (), (*notes, told)


def _listed(different: tuple[str, ...]) -> str:
    more = f"; and {len(different) - _MOST_NAMED} more" if len(different) > _MOST_NAMED else ""
    return "; ".join(different[:_MOST_NAMED]) + more
