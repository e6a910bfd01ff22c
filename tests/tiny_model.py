"""A transformer small enough to be made in a test: a folder as sentence-transformers has it.

Its tokens are bytes. `reference` computes the same vectors by numpy, without onnxruntime.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

DIMENSIONS = 384
MAX_TOKENS = 200


def write_model(
    folder: Path,
    *,
    pooling: str = "mean_tokens",
    modules: Sequence[str] = ("Transformer", "Pooling", "Normalize"),
    seed: int = 7,
    ships_onnx: bool = True,
) -> Path:
    """Write a model; without ONNX it has weights only, and has to be exported."""
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    paths = ["", *(f"{place}_{kind}" for place, kind in enumerate(modules[1:], start=1))]
    named = [
        {
            "idx": place,
            "name": str(place),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, (path, kind) in enumerate(zip(paths, modules, strict=True))
    ]
    write_json(folder / "modules.json", named)
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": DIMENSIONS, f"pooling_mode_{pooling}": True},
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS})
    write_json(folder / "config.json", {"model_type": "tiny"})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({one: place for place, one in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.enable_padding(length=512)  # as published tokenizers have it: not to be believed
    tokenizer.save(str(folder / "tokenizer.json"))
    random = numpy.random.default_rng(seed)
    with (folder / "model.safetensors").open("wb") as file:
        numpy.savez(
            file,
            embeddings=random.normal(size=(256, DIMENSIONS)).astype(numpy.float32),
            matrix=random.normal(size=(DIMENSIONS, DIMENSIONS)).astype(numpy.float32) / 20,
        )
    if ships_onnx:
        (folder / "onnx").mkdir(exist_ok=True)
        write_graph(folder, folder / "onnx" / "model.onnx")
    return folder


def write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content))


def weights(folder: Path) -> tuple[numpy.ndarray, numpy.ndarray]:
    with numpy.load(folder / "model.safetensors") as file:
        return file["embeddings"], file["matrix"]


def write_graph(folder: Path, file: Path, *, output: str = "last_hidden_state") -> None:
    """Write one layer: tokens attend to all that are not masked, then pass a matrix."""
    embeddings, matrix = weights(folder)
    size = ["batch", "tokens"]
    nodes = [
        helper.make_node("Gather", ["embeddings", "input_ids"], ["looked_up"]),
        helper.make_node("Transpose", ["looked_up"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["looked_up", "turned"], ["products"]),
        helper.make_node("Div", ["products", "scale"], ["scores"]),
        helper.make_node("Cast", ["attention_mask"], ["seen"], to=TensorProto.FLOAT),
        helper.make_node("Log", ["seen"], ["hidden"]),
        helper.make_node("Unsqueeze", ["hidden", "one"], ["spread"]),
        helper.make_node("Add", ["scores", "spread"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["attention"], axis=-1),
        helper.make_node("MatMul", ["attention", "looked_up"], ["context"]),
        helper.make_node("MatMul", ["context", "matrix"], ["mixed"]),
        helper.make_node("Add", ["mixed", "looked_up"], [output]),
    ]
    constants = {
        "embeddings": embeddings,
        "matrix": matrix,
        "scale": numpy.float32(DIMENSIONS**0.5),
        "one": numpy.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, size)
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [*size, DIMENSIONS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, file)


def reference(folder: Path, texts: Sequence[str], pooling: str = "mean") -> numpy.ndarray:
    """Return what the vectors should be."""
    embeddings, matrix = weights(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    rows = []
    for text in texts:
        looked_up = embeddings[tokenizer.encode(text).ids[:MAX_TOKENS]]
        scores = looked_up @ looked_up.T / DIMENSIONS**0.5
        attention = numpy.exp(scores - scores.max(axis=1, keepdims=True))
        attention /= attention.sum(axis=1, keepdims=True)
        tokens = attention @ looked_up @ matrix + looked_up
        row = {
            "mean": tokens.mean(axis=0),
            "cls": tokens[0],
            "max": tokens.max(axis=0),
            "lasttoken": tokens[-1],
        }[pooling]
        rows.append(row / numpy.linalg.norm(row))
    return numpy.stack(rows)
