"""A year of conversations with a help desk, made by rule: for trying `kb messages import`.

    python samples/messages.py 2025 > year.jsonl

The same year gives the same messages, about 3,000 in 600 conversations.
"""

import json
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

CONVERSATIONS = 600
_QUESTIONS = {
    "leave": "How many days of leave do I have left, and who approves them?",
    "expenses": "My train ticket was paid twice. How do I claim one of them back?",
    "travel": "Which hotels may I book for two nights, and what do I pay myself?",
    "access": "I cannot sign in since I changed my phone. Who can reset it?",
}
_ANSWERS = (
    "It is in the handbook: see the page on {intent}. Did that help?",
    "Your manager decides on it, by the end of the week. Shall I write to them?",
    "I have noted it as a question about {intent}, with the number {number}.",
)
_THANKS = ("Thank you, that was all.", "No, please go on.", "Yes, please do.")


def messages(year: int) -> Iterator[dict[str, Any]]:
    """Return a year's messages, oldest conversation first.

    Args:
        year: In UTC, from its first minute to its last day.
    """
    chance = random.Random(year)
    start = datetime(year, 1, 1, tzinfo=UTC)
    minutes = (start.replace(year=year + 1) - start) // timedelta(minutes=1)
    for number in range(CONVERSATIONS):
        moment = start + timedelta(minutes=minutes * number // CONVERSATIONS)
        intent, question = chance.choice(list(_QUESTIONS.items()))
        user = f"u-{chance.randrange(80)}"
        for turn in range(2 * chance.randint(1, 4)):
            role, content = "user", chance.choice(_THANKS) if turn else question
            if turn % 2:
                role = "assistant"
                content = chance.choice(_ANSWERS).format(intent=intent, number=number)
            yield {
                "id": f"m-{year}-{number}-{turn}",
                "conversation": f"c-{year}-{number}",
                "created_at": moment.isoformat(),
                "role": role,
                "content": content,
                "user": user,
                "language": "en",
                "intent": intent,
                "metadata": {"channel": chance.choice(("web", "mail"))},
            }
            moment += timedelta(seconds=chance.randint(5, 300))


if __name__ == "__main__":
    for message in messages(int(sys.argv[1])):
        print(json.dumps(message))
