"""The sections that say how questions are answered, and how well they must be."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from kb_assets.settings.section import Section

Language = Literal[
    "simple",
    "arabic",
    "armenian",
    "basque",
    "catalan",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "irish",
    "italian",
    "lithuanian",
    "nepali",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "serbian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
    "yiddish",
]
"""PostgreSQL's built-in text search configurations; `simple` stems nothing, drops nothing."""


class SearchSettings(Section):
    """How questions find passages. See docs/retrieval.md for why each default is what it is.

    Attributes:
        language: Whose stemming and stop words sources have that name none themselves.
        mode: `hybrid` looks for meaning and for words, `vector` and `lexical` for one of them.
        fusion: How the two are joined: `convex` adds their scores, `rrf` looks at ranks only.
        vector_weight: The share of meaning in a convex score, the rest is that of words; unset
            means 0.45, and 0.2 with the provider `hash`.
        timeout_seconds: How long the database may work on one question.
        log_days: How long questions are kept in `query_log`; 0 keeps none.
    """

    language: Language = "english"
    mode: Literal["hybrid", "vector", "lexical"] = "hybrid"
    fusion: Literal["convex", "rrf"] = "convex"
    vector_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    log_days: Annotated[float, Field(ge=0)] = 30.0


class RerankSettings(Section):
    """Who orders the best passages anew, over the protocol Cohere, Jina and TEI share.

    Attributes:
        url: The endpoint, such as `https://api.cohere.com/v2/rerank`; empty means nobody.
        model: The model's name, if the server wants one.
        api_key_variable: The environment variable that holds the key; it may be unset.
        candidates: How many passages are sent.
        timeout_seconds: How long one request may take.
    """

    url: str = ""
    model: str = ""
    api_key_variable: str = "KB_RERANK_API_KEY"
    candidates: Annotated[int, Field(ge=1, le=1000)] = 50
    timeout_seconds: Annotated[float, Field(gt=0)] = 10.0


class AnswerSettings(Section):
    """Which chat model answers, and from how much.

    Attributes:
        model: The model's name as the server knows it.
        base_url: Another server that speaks the OpenAI protocol; empty means OpenAI.
        api_key_variable: The environment variable that holds the key.
        passages: How many passages the model is shown.
        min_score: With no passage above this, the question is not answered; see
            `Hit.fused_score`.
        max_tokens: The longest answer.
        timeout_seconds: How long the model may be silent.
    """

    model: str = "gpt-4.1-mini"
    base_url: str = ""
    api_key_variable: str = "OPENAI_API_KEY"
    passages: Annotated[int, Field(ge=1, le=50)] = 8
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.15
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0


class CacheSettings(Section):
    """Where answers to repeated searches are kept. Losing it only slows.

    Attributes:
        url: `redis://…`, `postgres` for a table of the knowledge base, or empty for nowhere.
        ttl_seconds: How long an answer is kept; publishing makes it void before that.
    """

    url: str = ""
    ttl_seconds: Annotated[int, Field(ge=1)] = 3600


class QualitySettings(Section):
    """Which questions measure retrieval, and what follows from it.

    Attributes:
        questions: The golden questions: a YAML file or a BEIR folder, relative to `kb.toml`;
            empty measures nothing.
        cron: When they are asked even if nothing changed: five fields, in `schedule.timezone`;
            empty asks them after each change of the index only.
        max_drop: How far nDCG@10 may fall below the last run that held, beyond chance.
        min_ndcg: What nDCG@10 must reach in any case.
        block_publish: Whether a red verdict also stops the next publish.
    """

    questions: Path | None = None
    cron: str = ""
    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.02
    min_ndcg: Annotated[float, Field(ge=0, le=1)] = 0.0
    block_publish: bool = False


class CallerSettings(Section):
    """Somebody who may search with less than everything in view; enforced by the database.

    Attributes:
        name: How the caller is named by `kb search --as`.
        sources: Only documents of these sources; none named means of all.
        tags: Only documents with at least one of these tags; none named means with any or none.
    """

    name: str
    sources: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_limited(self) -> "CallerSettings":
        if not self.sources and not self.tags:
            raise ValueError("a caller is limited to sources or tags")
        return self
