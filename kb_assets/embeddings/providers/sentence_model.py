"""What a folder of sentence-transformers says about itself, read without that library.

Only models of one transformer, a pooling and perhaps a normalisation are taken. Whatever else
would change a vector is refused: a vector that is quietly another one is worse than none.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kb_assets.errors import ProviderRefusedError

POOLINGS = ("cls", "mean", "max", "lasttoken")
"""How the vectors of a text's tokens may become the text's vector."""

_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How `1_Pooling/config.json` names a pooling; newer files name it in `pooling_mode`."""

_TRANSFORMER, _POOLING, _NORMALIZE = "Transformer", "Pooling", "Normalize"


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """A model's files, and how they are to be used.

    Attributes:
        folder: The whole model, as sentence-transformers reads it.
        transformer: Where the transformer's weights, tokenizer and `config.json` are.
        pooling: One of `POOLINGS`.
        max_tokens: Where a text is cut off.
    """

    folder: Path
    transformer: Path
    pooling: str
    max_tokens: int


def read_model(folder: Path) -> SentenceModel:
    """Read a model's own configuration.

    Raises:
        ProviderRefusedError: It is no such model, or does what cannot be done here.
    """
    modules = _json(folder / "modules.json", default=[])
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    if modules and kinds not in (
        [_TRANSFORMER, _POOLING],
        [_TRANSFORMER, _POOLING, _NORMALIZE],
    ):
        raise _unsupported(folder, f"its modules are {', '.join(kinds)}")
    transformer = folder / (modules[0]["path"] if modules else "")
    if not (transformer / "tokenizer.json").is_file():
        raise _unsupported(folder, "it has no tokenizer.json")
    if _json(folder / "config_sentence_transformers.json").get("default_prompt_name"):
        raise _unsupported(folder, "it puts a prompt before every text (default_prompt_name)")
    own = _json(transformer / "sentence_bert_config.json")
    if own.get("do_lower_case"):
        raise _unsupported(folder, "it lowers the case of texts (do_lower_case)")
    pooling = _pooling(folder, folder / modules[1]["path"]) if modules else "mean"
    return SentenceModel(folder, transformer, pooling, _max_tokens(transformer, own))


def _pooling(folder: Path, module: Path) -> str:
    config = _json(module / "config.json")
    flagged = [name for flag, name in _POOLING_FLAGS.items() if config.get(flag)]
    named = config.get("pooling_mode", flagged or ["mean"])
    poolings = [named] if isinstance(named, str) else list(named)
    if len(poolings) != 1 or poolings[0] not in POOLINGS:
        raise _unsupported(folder, f"its pooling is {' + '.join(poolings)}")
    if not config.get("include_prompt", True):
        raise _unsupported(folder, "its pooling leaves out the prompt (include_prompt)")
    return str(poolings[0])


def _max_tokens(transformer: Path, own: dict[str, Any]) -> int:
    if own.get("max_seq_length"):
        return int(own["max_seq_length"])
    config = _json(transformer / "config.json")
    positions = config.get("max_position_embeddings", 512)
    longest = _json(transformer / "tokenizer_config.json").get("model_max_length", positions)
    return int(min(longest, positions))


def _json(file: Path, default: Any = None) -> Any:  # noqa: ANN401
    if not file.is_file():
        return {} if default is None else default
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unsupported(file.parent, f"{file.name} is no JSON") from error


def _unsupported(folder: Path, why: str) -> ProviderRefusedError:
    return ProviderRefusedError(
        f"The model in {folder} cannot be run by onnxruntime.",
        why=f"As its own configuration says, {why}.",
        fix="Choose a model of a transformer with tokenizer.json, whose vectors are pooled by "
        f"one of {', '.join(POOLINGS)}; or serve this one, and use it as provider 'openai' with "
        "a base_url.",
    )
