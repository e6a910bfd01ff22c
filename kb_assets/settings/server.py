"""A provider's address and key, as settings name them."""

import os
from urllib.parse import urlsplit

from kb_assets.errors import ProviderRefusedError, SettingsError


def require_address(setting: str, url: str, example: str) -> None:
    """Refuse what is no server's address, or holds a secret; empty is for the caller to judge.

    Args:
        setting: Which setting it is, such as `embedding.base_url`.
        url: What it says.
        example: What it could look like.

    Raises:
        SettingsError: It cannot be used.
    """
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise SettingsError(
            f"{setting} is no address of a server.",
            why="It must start with http:// or https://, and name a host.",
            fix=f"Write it like {example}.",
        )
    if parts.username or parts.password or parts.query:
        raise SettingsError(
            f"{setting} holds a name, a password or a query.",
            why="Settings are stored and shown, so they must hold no secret.",
            fix="Put the key into the variable that "
            f"{setting.partition('.')[0]}.api_key_variable names.",
        )


def read_key(variable: str) -> str:
    """Return the key that an environment variable holds; empty if it is not set.

    Raises:
        ProviderRefusedError: It holds characters that no key has.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ProviderRefusedError(
            f"{variable} holds no key.",
            why="There are characters in it that no key has.",
            fix="Copy the key again.",
        )
    return key
