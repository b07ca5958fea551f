"""Chooses the tokens that a cut head keeps (`engines.runtime.head_tokens`): the most frequent ones of a text.

The texts should be what the draft will write: outputs of the target on problems like those that it will solve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from semanticspec.errors import ConfigError
from semanticspec.problems.sources import read_jsonl
from semanticspec.text.vocabulary import Vocabulary
from semanticspec.training.data.storage import MANIFEST_FILE, Collection


@dataclass(frozen=True, slots=True)
class ChosenTokens:
    """The result of `choose_head_tokens`.

    Attributes:
        ids: the kept tokens, ascending.
        num_counted: tokens of the texts.
        coverage: share of these that are kept.
    """

    ids: tuple[int, ...]
    num_counted: int
    coverage: float


def choose_head_tokens(vocabulary: Vocabulary, texts: Iterable[str], size: int) -> ChosenTokens:
    """Returns the `size` most frequent tokens.

    Added tokens and those that end a text are always kept. Where the texts have fewer different tokens, the lowest ids
    follow: tokenizers number their tokens in the order in which they were merged, roughly the most frequent first.

    Raises:
        ConfigError: `size` is too small, or as large as the vocabulary.
    """
    known = sorted(set(vocabulary.tokenizer.get_vocab().values()))
    always = {*vocabulary.added_tokens, *vocabulary.end_ids}
    if not len(always) < size < len(known):
        raise ConfigError(
            f"size is {size}; expected more than {len(always)} (the tokens that are always kept) and less than "
            f"{len(known)} (all tokens)"
        )
    counts: Counter[int] = Counter()
    for text in texts:
        counts.update(vocabulary.encode(text))
    others = sorted(set(known) - always, key=lambda token_id: (-counts[token_id], token_id))
    kept = always.union(others[: size - len(always)])
    total = counts.total()
    covered = sum(count for token_id, count in counts.items() if token_id in kept)
    return ChosenTokens(tuple(sorted(kept)), total, covered / total if total else 0.0)


def read_texts(path: Path, fields: Sequence[str]) -> Iterator[str]:
    """Yields the texts of a collection (what the target wrote), of fields of a JSONL file, or of a text file.

    Raises:
        ConfigError: The file cannot be read, or a row has none of the fields.
        ProbeError: The collection is broken.
    """
    if not path.exists():
        raise ConfigError(f"there is no file {path}; expected a text file, a JSONL file or a collection")
    if (path / MANIFEST_FILE).is_file():
        for shard in Collection(path):
            for segment in shard.segments:
                if segment.author == "target":
                    yield from [segment.text] * segment.count
    elif path.suffix == ".jsonl":
        for number, row in enumerate(read_jsonl(str(path)), start=1):
            found = [row[name] for name in fields if name in row] if isinstance(row, dict) else []
            if not found or not all(isinstance(text, str) for text in found):
                raise ConfigError(
                    f"{path}, row {number}: expected an object with text in {' or '.join(fields)}"
                )
            yield from found
    else:
        try:
            yield path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read {path}: {error}; expected a text file, a JSONL file or a collection"
            ) from error
