"""What every provider's answer must pass before anything is stored or searched with.

Providers answer wrongly in quiet ways: a row too few, a NaN, a vector of zeros
that no index will ever find, another model's dimensions. All of them are caught
here, for the built-in providers and for a user's own.
"""

import numpy

from kb_assets.embeddings.embedder import Answer, Model, Vectors
from kb_assets.errors import ProviderRefusedError, TextRefusedError

LARGEST = 65_504.0
"""The largest number a `halfvec` holds."""

SMALLEST_PEAK = 6.2e-5
"""A vector whose largest number is below this loses its direction, or itself, in a `halfvec`."""

_EXPLANATIONS = {
    "not_finite": "The vector has a NaN or an infinity in it, or is missing from the answer.",
    "zero_vector": "The vector is zero, or too short to have a direction.",
    "out_of_range": f"The vector has numbers beyond {LARGEST:.0f}, the most a halfvec can hold.",
}


def check_shape(answer: Answer, texts: int, model: Model) -> None:
    """Check that there is one vector for each text, of the model's dimensions.

    Args:
        answer: What the provider gave.
        texts: How many texts it was asked for.
        model: What was promised.

    Raises:
        ProviderRefusedError: The vectors have other dimensions: another model has answered.
        TextRefusedError: There are more or fewer vectors than texts (`wrong_count`), so
            that it is not known which belongs to which.
    """
    shape = numpy.shape(answer.vectors)
    if len(shape) == 2 and shape[0] > 0 and shape[1] != model.dimensions:
        raise ProviderRefusedError(
            f"{model.name!r} gives vectors of {shape[1]} dimensions, not {model.dimensions}.",
            why="Vectors of different dimensions cannot be compared.",
            fix=f"Set embedding.dimensions = {shape[1]} (this fills a new space), "
            "or the model that was meant.",
        )
    if len(shape) != 2 or shape[0] != texts:
        raise TextRefusedError(
            "wrong_count",
            f"{model.name!r} answered {texts} texts with {shape[0] if shape else 0} vectors.",
            why="It is not known which vector belongs to which text.",
            fix="Ask the provider's operator; `kb index` tries again when the text changes.",
        )


def faults_of(vectors: Vectors) -> dict[int, str]:
    """Return the rows that cannot be used, each with a stable word for the cause.

    Args:
        vectors: Shape (texts, dimensions).

    Returns:
        Row number → `not_finite`, `zero_vector` or `out_of_range`; empty when all are sound.
    """
    peaks = numpy.abs(vectors).max(axis=1)
    faults: dict[int, str] = {}
    for row in numpy.flatnonzero(~((peaks >= SMALLEST_PEAK) & (peaks <= LARGEST))):
        faults[int(row)] = _fault(float(peaks[row]))
    return faults


def refusal(reason: str, model: Model) -> TextRefusedError:
    """Return the error of a text whose vector has a fault that `faults_of` names."""
    return TextRefusedError(
        reason,
        f"{model.name!r} gave no usable vector for a text.",
        why=_EXPLANATIONS[reason],
        fix="Change the text or the model; the other texts are not affected.",
    )


def check(answer: Answer, texts: int, model: Model) -> Vectors:
    """Return the vectors if every one of them is sound.

    Args:
        answer: What the provider gave.
        texts: How many texts it was asked for.
        model: What was promised.

    Raises:
        ProviderRefusedError: The vectors have other dimensions.
        TextRefusedError: The count is wrong, or a vector cannot be used.
    """
    check_shape(answer, texts, model)
    for reason in faults_of(answer.vectors).values():
        raise refusal(reason, model)
    return answer.vectors


def _fault(peak: float) -> str:
    if not numpy.isfinite(peak):
        return "not_finite"
    return "zero_vector" if peak < SMALLEST_PEAK else "out_of_range"
