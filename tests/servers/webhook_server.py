"""A webhook for messages, as Slack has one, and what may go wrong with it."""

import time
from dataclasses import dataclass, field

from tests.servers.scripted import Exchange, Request, ScriptedServer


@dataclass(frozen=True, slots=True)
class Reply:
    """How one message is answered."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after_seconds: float = 0.0


class WebhookServer(ScriptedServer[Reply]):
    """Takes messages; `taken` has those that were answered with 200."""

    def __init__(self) -> None:
        super().__init__(Reply())
        self.taken: list[Request] = []

    @property
    def texts(self) -> list[str]:
        """What each message that was taken shows, as one text."""
        return [
            "\n".join(block["text"]["text"] for block in one.body["blocks"]) for one in self.taken
        ]

    def answer(self, exchange: Exchange, request: Request, fault: Reply) -> None:
        time.sleep(fault.after_seconds)
        if fault.status == 200:
            self.taken.append(request)
        exchange.send(fault.status, "ok", fault.headers)
