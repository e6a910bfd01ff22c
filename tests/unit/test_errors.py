"""The error tree: every error says what, why and what to do, and survives a process boundary."""

import pickle

import pytest

from kb_assets import errors
from kb_assets.errors import DocumentError, KbError, PermanentError, TransientError

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", [kind for kind in ALL if issubclass(kind, KbError)])
def test_every_error_is_drawn_and_placed(kind: type[KbError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")
    if kind is not KbError:
        assert issubclass(kind, PermanentError) != issubclass(kind, TransientError)


def test_an_error_survives_a_pickle_whole() -> None:
    error = DocumentError("binary", "It is binary.", why="It has NULs.", fix="Exclude it.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is DocumentError
    assert str(copy) == "It is binary. It has NULs. Exclude it."
    assert (copy.reason, copy.what, copy.why, copy.fix) == (
        *("binary", "It is binary."),
        *("It has NULs.", "Exclude it."),
    )
