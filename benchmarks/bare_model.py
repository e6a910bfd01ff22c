"""A sentence-transformers model in int8 by onnxruntime, and nothing around it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
from tokenizers import Tokenizer

from kb_assets.embeddings.embedder import Vectors
from kb_assets.embeddings.providers.sentence_model import read_model

BATCH = 8
"""The best of 4, 8 and 32 where texts are padded."""


def bare_loop(folder: Path, graph: Path) -> Callable[[Sequence[str]], Vectors]:
    """The model and nothing else: sorted batches, padded, with onnxruntime's own threads."""
    import onnxruntime

    model = read_model(folder)
    if not graph.exists():
        export_with_mask(folder, graph)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_tokens)

    def loop(texts: Sequence[str]) -> Vectors:
        ids = [one.ids for one in tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(texts)), key=lambda place: len(ids[place]))
        vectors = numpy.empty((len(texts), 384), dtype=numpy.float32)
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            longest = max(len(ids[place]) for place in places)
            batch = numpy.zeros((len(places), longest), dtype=numpy.int64)
            mask = numpy.zeros_like(batch)
            for row, place in enumerate(places):
                batch[row, : len(ids[place])] = ids[place]
                mask[row, : len(ids[place])] = 1
            (tokens,) = session.run(None, {"input_ids": batch, "attention_mask": mask})
            means = (tokens * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1)[:, None]
            vectors[places] = means / numpy.linalg.norm(means, axis=1, keepdims=True)
        return vectors

    return loop


def export_with_mask(folder: Path, file: Path) -> None:
    """Write the same model in int8, as it must be for texts that are padded."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from sentence_transformers import SentenceTransformer

    class Masked(torch.nn.Module):
        def __init__(self, transformer: Callable[..., object]) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: object, attention_mask: object) -> object:
            found = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
            return found.last_hidden_state

    example = torch.tensor([[101, 7592, 102], [101, 102, 0]])
    names = ["input_ids", "attention_mask"]
    full = file.with_suffix(".fp32")
    torch.onnx.export(
        Masked(SentenceTransformer(str(folder), device="cpu")[0].auto_model).eval(),
        (example, (example > 0).long()),
        str(full),
        input_names=names,
        output_names=["tokens"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in (*names, "tokens")},
        dynamo=False,
    )
    quantize_dynamic(
        full,
        file,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
    full.unlink()
