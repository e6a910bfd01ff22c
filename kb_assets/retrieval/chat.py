"""The chat model: OpenAI's, or one on any server that speaks its chat completions protocol."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kb_assets.errors import KbError, ProviderRefusedError, ProviderUnavailableError
from kb_assets.settings import AnswerSettings
from kb_assets.settings.server import read_key, require_address

if TYPE_CHECKING:
    import openai

_NO_KEY = "no-key-needed"
_OPENAI_URL = "https://api.openai.com/v1"
_REFUSING_A_PARAMETER = frozenset({400, 422})


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the server counted: tokens it read, and tokens it wrote."""

    prompt: int
    completion: int


class Chat:
    """A chat model. Safe to call from several threads.

    The client is imported and made at the first request. It asks again by itself after
    timeouts, resets, 429 and 5xx, but never once an answer has begun.

    Args:
        settings: Which model, where, and how patiently.

    Raises:
        SettingsError: `answer.base_url` is no address, or holds a secret.
        ProviderRefusedError: There is no key in the environment, and OpenAI wants one.
    """

    def __init__(self, settings: AnswerSettings) -> None:
        require_address("answer.base_url", settings.base_url, "http://localhost:11434/v1")
        self.settings = settings
        self.server = settings.base_url or _OPENAI_URL
        self.key = _key(settings)
        self._options: dict[str, Any] = {
            "stream_options": {"include_usage": True},
            "max_tokens": settings.max_tokens,
        }

    def ask(self, instruction: str, message: str) -> "Completion":
        """Return what the model answers, while it writes.

        Args:
            instruction: The system message.
            message: The user's message.

        Raises:
            ProviderRefusedError: The server will never answer this request.
            ProviderUnavailableError: The server cannot be reached, or went on failing.
        """
        messages = [
            {"role": "system", "content": instruction},
            {"role": "user", "content": message},
        ]
        return Completion(self, self._open(messages, self._options))

    @cached_property
    def _client(self) -> "openai.OpenAI":
        import openai

        return openai.OpenAI(
            base_url=self.server, api_key=self.key, timeout=self.settings.timeout_seconds
        )

    def _open(self, messages: Any, options: dict[str, Any]) -> Any:  # noqa: ANN401
        """Send a request; again with what the server knows if it refuses one of our parameters."""
        import openai

        try:
            stream = self._client.chat.completions.create(
                model=self.settings.model, messages=messages, stream=True, **options
            )
        except openai.OpenAIError as error:
            fewer = _without_what_is_refused(options, error)
            if fewer is None:
                raise self.explained(error) from None
        else:
            self._options = options
            return stream
        return self._open(messages, fewer)

    def explained(self, error: "openai.OpenAIError") -> KbError:
        """Return the error of our own that a client's error amounts to."""
        import openai

        from kb_assets.embeddings.providers.openai_errors import is_transient, message_of

        why = message_of(error, self.key)
        if is_transient(error):
            return ProviderUnavailableError(
                f"The chat model at {self.server} gave no whole answer.",
                why=why,
                fix="Ask again later; answer.timeout_seconds may be too short.",
            )
        status = error.status_code if isinstance(error, openai.APIStatusError) else 0
        fixes = {
            401: f"Set the key in {self.settings.api_key_variable}.",
            403: "Ask for access to the model, or use another key.",
            404: "Correct answer.model or answer.base_url.",
        }
        return ProviderRefusedError(
            f"The chat model {self.settings.model!r} at {self.server} refuses.",
            why=why,
            fix=fixes.get(status, "Correct the answer section of kb.toml."),
        )


class Completion:
    """What a model writes, piece by piece; to be iterated once.

    Attributes:
        tokens: What the server counted; None if it did not say.
        cut_off: Whether the model stopped at `answer.max_tokens`.
    """

    def __init__(self, chat: Chat, stream: Any) -> None:  # noqa: ANN401
        self.tokens: Tokens | None = None
        self.cut_off = False
        self._chat = chat
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        """Yield the text as it arrives.

        Raises:
            ProviderUnavailableError: It broke off; what was yielded is not the whole.
            ProviderRefusedError: The server's filter stopped it.
        """
        import openai

        finish_reason = None
        try:
            with self._stream:
                for chunk in self._stream:
                    self._count(getattr(chunk, "usage", None))
                    for choice in getattr(chunk, "choices", None) or ():
                        finish_reason = choice.finish_reason or finish_reason
                        if text := getattr(choice.delta, "content", None):
                            yield text
        except openai.OpenAIError as error:
            raise self._chat.explained(error) from None
        except ValueError:
            raise _broken_off("a part of it was not JSON") from None
        # A connection that is closed early looks like an end to the client.
        if finish_reason is None:
            raise _broken_off("the connection ended before the answer did")
        if finish_reason == "content_filter":
            raise _filtered()
        self.cut_off = finish_reason == "length"

    def _count(self, usage: Any) -> None:  # noqa: ANN401
        read = getattr(usage, "prompt_tokens", None)
        written = getattr(usage, "completion_tokens", None)
        if isinstance(read, int) and isinstance(written, int):
            self.tokens = Tokens(read, written)


def _key(settings: AnswerSettings) -> str:
    key = read_key(settings.api_key_variable)
    if key or settings.base_url:
        return key or _NO_KEY
    raise ProviderRefusedError(
        "There is no key for the chat model.",
        why=f"The environment has no {settings.api_key_variable}.",
        fix=f"export {settings.api_key_variable}=… (see platform.openai.com/api-keys), "
        "or set answer.base_url to a server that needs none.",
    )


def _without_what_is_refused(
    options: Mapping[str, Any], error: "openai.OpenAIError"
) -> dict[str, Any] | None:
    """Return options without the one a server does not know; None if that is not its complaint."""
    import openai

    if not isinstance(error, openai.APIStatusError):
        return None
    if error.status_code not in _REFUSING_A_PARAMETER:
        return None
    said = f"{error.param} {error}"
    if "stream_options" in options and ("stream_options" in said or "include_usage" in said):
        return {name: value for name, value in options.items() if name != "stream_options"}
    # OpenAI's reasoning models know only the second name, most other servers only the first.
    if "max_tokens" in options and "max_completion_tokens" in said:
        renamed = {"max_tokens": "max_completion_tokens"}
        return {renamed.get(name, name): value for name, value in options.items()}
    return None


def _broken_off(why: str) -> ProviderUnavailableError:
    return ProviderUnavailableError(
        "The chat model's answer broke off.",
        why=f"Its status was 200, but {why}.",
        fix="Ask again.",
    )


def _filtered() -> ProviderRefusedError:
    return ProviderRefusedError(
        "The chat model's server stopped the answer.",
        why="Its content filter objects to what was being written.",
        fix="Ask in other words, or use another model.",
    )
