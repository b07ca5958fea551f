"""`semanticspec head-tokens`: chooses the tokens that a draft with a cut head keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semanticspec.commands.option_groups import option
from semanticspec.output.progress import say

Texts = Annotated[
    list[Path],
    typer.Argument(
        help="What to count: collections (what the target wrote), JSONL files or text files.",
        show_default=False,
    ),
]
Model = Annotated[
    str, option("The draft: hub name, folder or GGUF file; only its tokenizer is loaded.", "--draft")
]
Size = Annotated[int, option("Number of tokens to keep.", min=1)]
Out = Annotated[Path, option("Text file to write, with one token id per line.")]
Fields = Annotated[
    list[str] | None,
    option("Field of JSONL files that holds text; repeat the option for more.", "--field", default="text"),
]


def head_tokens_command(
    texts: Texts, draft: Model, out: Out, size: Size = 32768, fields: Fields = None
) -> None:
    """Choose the tokens that a draft with a cut head keeps, by counting texts.

    Use the file as an engine option: --draft-engine llama-cpp:head_tokens=FILE, or transformers:head_tokens=FILE.
    """
    from semanticspec.output.files import write_atomically
    from semanticspec.text.vocabulary import Vocabulary
    from semanticspec.training.head_tokens import choose_head_tokens, read_texts

    vocabulary = Vocabulary.load(draft)
    chosen = choose_head_tokens(
        vocabulary, (text for path in texts for text in read_texts(path, fields or ["text"])), size
    )
    write_atomically(out, "".join(f"{token_id}\n" for token_id in chosen.ids).encode())
    say(
        f"kept {len(chosen.ids):,} tokens in {out}: {chosen.coverage:.2%} of the {chosen.num_counted:,} that were "
        "counted"
    )
