"""From texts to vectors by onnxruntime: each text alone, as many at once as there are cores.

A text alone needs no padding and no attention mask, so nothing that is computed is thrown away:
measured with all-MiniLM-L6-v2 it takes less of the processor than any batch of texts that were
sorted by length (fp32: 3.3 s for 80 texts alone, 4.3 s in batches of 8, 5.6 s in batches of 32).
And its vector depends on nothing but itself, which int8 in batches cannot promise: numbers are
scaled by the largest in the batch.

Parallel texts rather than parallel operations: onnxruntime starts no threads, so that however
many requests are in flight, the process computes with one thread for each core.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy
from tokenizers import Tokenizer

from kb_assets.embeddings.embedder import Answer, Vectors
from kb_assets.embeddings.providers.sentence_model import SentenceModel
from kb_assets.errors import ProviderRefusedError

# Since 1.29 onnxruntime reports to its maker, unless this was said before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

_POOLINGS: dict[str, Callable[[Vectors], Vectors]] = {
    "cls": lambda tokens: tokens[0],
    "mean": lambda tokens: tokens.mean(axis=0),
    "max": lambda tokens: tokens.max(axis=0),
    "lasttoken": lambda tokens: tokens[-1],
}
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


class Encoder:
    """A model that is loaded. Safe to call from several threads.

    Args:
        model: What the model says about itself.
        graph: The transformer as ONNX: from tokens to a vector for each.

    Raises:
        ProviderRefusedError: The graph cannot be loaded, or is not what it should be.
    """

    def __init__(self, model: SentenceModel, graph: Path) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(model.transformer / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(model.max_tokens)
        self._pool = _POOLINGS[model.pooling]
        self._session = _session(graph)
        self._inputs = {one.name for one in self._session.get_inputs()}
        outputs = [one.name for one in self._session.get_outputs() if len(one.shape) == 3]
        if not outputs or "input_ids" not in self._inputs or not self._inputs <= _INPUTS:
            raise ProviderRefusedError(
                f"{graph} is not a transformer as it is needed here.",
                why=f"It goes from {sorted(self._inputs)} to {outputs or 'no vectors of tokens'}.",
                fix="Export it with a vector for each token (optimum: last_hidden_state).",
            )
        self._output = outputs[0]

    def embed(self, texts: Sequence[str]) -> Answer:
        """Return a vector of length 1 for each text, in order, and how many tokens were read."""
        rows = list(_workers().map(self._embed, texts))
        vectors = numpy.stack([vector for vector, _ in rows])
        return Answer(vectors, sum(tokens for _, tokens in rows))

    def _embed(self, text: str) -> tuple[Vectors, int]:
        ids = numpy.array([self._tokenizer.encode(text).ids], dtype=numpy.int64)
        given = {
            "input_ids": ids,
            "attention_mask": numpy.ones_like(ids),
            "token_type_ids": numpy.zeros_like(ids),
        }
        wanted = {name: given[name] for name in self._inputs}
        vector = self._pool(self._session.run([self._output], wanted)[0][0])
        return vector / max(float(numpy.linalg.norm(vector)), 1e-12), ids.size


def _session(graph: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no class in common
        raise ProviderRefusedError(
            f"{graph} cannot be loaded.",
            why=" ".join(str(error).split())[:300],
            fix="If it is in the cache, delete its folder: it is made again. Otherwise get the "
            "model again.",
        ) from error


@cache
def _workers() -> ThreadPoolExecutor:
    """Return the threads that all models of this process share, one for each core."""
    can_ask = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if can_ask else os.cpu_count()
    return ThreadPoolExecutor(cores, thread_name_prefix="local-model")
