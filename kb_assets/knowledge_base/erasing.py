"""Erasing for good: a conversation, a user's conversations, or a document."""

from typing import TYPE_CHECKING

from kb_assets.database.run import Run
from kb_assets.erasure.subject import Scope, Subject
from kb_assets.errors import SettingsError
from kb_assets.knowledge_base.archiving import Archiving
from kb_assets.knowledge_base.connections import opened_once

if TYPE_CHECKING:
    from kb_assets.erasure.erase import ErasurePlan
    from kb_assets.erasure.ledger import Erasure
    from kb_assets.object_store import ObjectStore


class Erasing(Archiving):
    """Erasing for good: a conversation, a user's conversations, or a document."""

    @opened_once
    def backup_store(self) -> "ObjectStore":
        """Where backups are; and the ledger of erasures, if there is no archive.

        Raises:
            ObjectStoreError: It cannot be opened.
        """
        from kb_assets.object_store import ObjectStore

        settings = self.settings.backup
        is_folder = "://" not in settings.uri
        uri = str(self.settings.root.resolve() / settings.uri) if is_folder else settings.uri
        return ObjectStore(uri, settings.options, setting="backup.uri")

    def plan_erasure(
        self, *, conversation: str = "", user: str = "", document: str = ""
    ) -> "ErasurePlan":
        """Say what `erase` would be about; nothing is changed.

        Raises:
            SettingsError: Not exactly one subject is given.
            NotFoundError: Nothing is known of it, and nothing of it was erased.
        """
        from kb_assets.erasure.erase import plan_erasure

        subject = _subject(conversation=conversation, user=user, document=document)
        return plan_erasure(self.database, subject)

    def erase(
        self,
        *,
        conversation: str = "",
        user: str = "",
        document: str = "",
        run: Run | None = None,
    ) -> "Erasure":
        """Erase one subject for good, and return the ledger's entry with its receipt.

        Messages are hidden and deleted at once, and then taken out of the archive, which is
        written anew without them; none of a conversation are taken in any more. A document leaves
        the index at once, and is not read again although its source may still have it.

        Args:
            conversation: A conversation's id; or else
            user: a user's id, for all of their conversations; or else
            document: a document, as `SOURCE/PATH`.
            run: Who erases; made up if it is not given.

        Raises:
            SettingsError: Not exactly one subject is given.
            NotFoundError: Nothing is known of it, and nothing of it was erased.
            KbError: The archive could not be written anew: the subject is hidden all the same,
                and `resume_erasures` or the next run of the archive finishes what is left.
        """
        from kb_assets.erasure.erase import erase

        subject = _subject(conversation=conversation, user=user, document=document)
        return erase(run or self.run(), self._erased_from(), subject, ledger=self._ledger())

    def resume_erasures(self, *, run: Run | None = None) -> tuple["Erasure", ...]:
        """Finish what was left unfinished, and return it.

        Raises:
            KbError: The archive could not be written anew.
        """
        from kb_assets.erasure.erase import finish_erasures

        return finish_erasures(run or self.run(), self._erased_from(), ledger=self._ledger())

    def erasures(self) -> tuple["Erasure", ...]:
        """Return the ledger, oldest first."""
        from kb_assets.erasure.ledger import find_erasures

        with self.reader.transaction() as connection:
            return find_erasures(connection)

    def _erased_from(self) -> "ObjectStore | None":
        return self.archive_store if self.settings.archive else None

    def _ledger(self) -> "ObjectStore":
        return self._erased_from() or self.backup_store


def _subject(*, conversation: str, user: str, document: str) -> Subject:
    names: dict[Scope, str] = {"conversation": conversation, "user": user, "document": document}
    given = [Subject(scope, name) for scope, name in names.items() if name]
    if len(given) != 1:
        raise SettingsError(
            "One subject is erased at a time.",
            fix="Name a conversation, a user, or a document.",
        )
    return given[0]
