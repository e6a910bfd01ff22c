"""What is asked of the cost of growth, beside what `benchmarks.growth` measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.record import Row


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long a run took.

    Attributes:
        whole: From its call to its return.
        listing: What the reading stage took of it.
        splitting: The same for splitting, and so on.
        embedding: With what it takes to put vectors into an HNSW index that is there.
        publishing: With the index of words.
        graph: What building the HNSW index took.
    """

    whole: float
    listing: float
    splitting: float
    embedding: float
    publishing: float
    graph: float

    def __str__(self) -> str:
        return (
            f"{self.whole:.2f} s ({self.listing:.2f} listing and reading, {self.splitting:.2f}"
            f" splitting, {self.embedding:.2f} embedding, {self.publishing:.2f} publishing)"
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """One size of corpus. Each time is the median of several, but for the first load.

    Attributes:
        files: How many files.
        bytes: How many bytes they have.
        vectors: How many vectors after the first load.
        first: Everything is new.
        walk: `scandir` and stat of every file, in Python.
        nothing: Nothing changed.
        ten: Ten files were edited.
        hundredth: One in a hundred was edited.
        folder: A folder with a tenth of the files was renamed.
        renamed_texts: How many texts were embedded for that.
        peaks: The most memory, in bytes, of this process and of a worker in the first load.
        nothing_peak: The most memory of a new process in which nothing changed.
    """

    files: int
    bytes: int
    vectors: int
    first: Seconds
    walk: float
    nothing: Seconds
    ten: Seconds
    hundredth: Seconds
    folder: Seconds
    renamed_texts: int
    peaks: dict[str, int]
    nothing_peak: int


def rows_of(sizes: Sequence[Measured]) -> list[Row]:
    """Return what the issue asks of the cost of the largest of several sizes."""
    small, before, last = sizes[0], sizes[max(0, len(sizes) - 2)], sizes[-1]
    of = f"{last.files:,} files"
    return [
        _linear(before, last, lambda one: one.files, "file"),
        _at_most(
            f"{of}, nothing changed", last.nothing.whole / last.walk, 3, "x scandir + stat",
            f"{last.nothing.whole:.2f} s against {last.walk:.2f} s; "
            + _along(sizes, lambda one: f"{one.nothing.whole:.3f} s"),
        ),
        _at_most(
            "memory, nothing changed", _per_file(before, last, lambda one: one.nothing_peak), 1000,
            "bytes for each file more", _along(sizes, lambda one: _mb(one.nothing_peak)),
        ),
        _at_most(
            "memory, first load",
            _per_file(before, last, lambda one: max(one.peaks.values())), 1000,
            "bytes for each file more",
            "of the process that takes most; " + _along(sizes, _peaks),
        ),
        _at_most(
            "1% of the files edited", 100 * last.hundredth.whole / last.first.whole, 3,
            "% of the first load",
            f"{of}: {last.hundredth} of {last.first.whole:.1f} s",
        ),
        _at_most(
            f"folder of {last.files // 10:,} files renamed",
            100 * last.folder.whole / last.first.whole, 10, "% of the first load",
            f"{of}: {last.folder.whole:.2f} s; {last.renamed_texts} texts embedded",
        ),
        _at_most(
            f"10 files edited, {last.files // small.files} times the corpus",
            _after_listing(last) / _after_listing(small), 1.5, "x, apart from the listing",
            _along(
                sizes,
                lambda one: f"{_after_listing(one):.3f} s and {one.ten.listing:.3f} s the listing",
            ),
        ),
    ]  # fmt: skip


def large_rows(small: Measured, large: Measured) -> list[Row]:
    """Return what is asked of a corpus of larger files, beside one a tenth as large."""
    return [
        _linear(small, large, lambda one: one.bytes / 1e6, "MB"),
        _at_most(
            f"memory, first load of {_mb(large.bytes)}",
            max(large.peaks.values()) / max(small.peaks.values()), 1.25,
            f"x that of {_mb(small.bytes)}", _along([small, large], _peaks),
        ),
    ]  # fmt: skip


def _linear(one: Measured, other: Measured, size: Callable[[Measured], float], unit: str) -> Row:
    def cost(measured: Measured) -> float:
        return (measured.first.whole - measured.first.graph) / size(measured)

    times = _along(
        [one, other],
        lambda one: (
            f"{one.first.whole - one.first.graph:.1f} s ({1000 * cost(one):.2f} ms/{unit})"
            f" and {one.first.graph:.1f} s to build the HNSW index of {one.vectors:,} vectors"
        ),
    )
    return _at_most(
        f"first load, {size(other) / size(one):.0f} times the corpus",
        cost(other) / cost(one), 1.25, f"x the time for each {unit}, without HNSW", times,
    )  # fmt: skip


def _at_most(name: str, found: float, most: float, unit: str, detail: str) -> Row:
    return Row(name, f"{found:.3g} {unit}", f"≤ {most:g}", found <= most, detail)


def _along(sizes: Sequence[Measured], told: Callable[[Measured], str]) -> str:
    return "; ".join(f"{one.files:,} files: {told(one)}" for one in sizes)


def _per_file(one: Measured, other: Measured, peak: Callable[[Measured], int]) -> float:
    return (peak(other) - peak(one)) / max(1, other.files - one.files)


def _after_listing(measured: Measured) -> float:
    return measured.ten.whole - measured.ten.listing


def _peaks(measured: Measured) -> str:
    return ", ".join(f"{role} {_mb(size)}" for role, size in measured.peaks.items())


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
