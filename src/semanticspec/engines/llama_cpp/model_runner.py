"""Forward passes of a GGUF model, and the KV cache of its sequences."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from semanticspec.engines.llama_cpp.cut_head import CutModel
from semanticspec.engines.llama_cpp.library import LOG, import_llama_cpp
from semanticspec.engines.llama_cpp.options import LlamaSettings
from semanticspec.errors import EngineError

MAX_SEQUENCES = 64
MAX_BATCH_TOKENS = 256
"""Tokens per forward pass. Other calls get their turn between passes."""

# When hidden states are requested, llama.cpp computes the logits of every token: at most this many values, 64 MB.
_MAX_LOGITS = 2**24
_TO_THE_END = -1
_MAX_METADATA_BYTES = 256
# Self-test of models with a cut head. Quantized layers round alike for equal inputs, so the states hardly differ.
_TEST_TOKENS = 4
_TEST_TOLERANCE = 1e-3
_BATCH_FIELDS: dict[str, Any] = {
    "token": np.int32,
    "pos": np.int32,
    "n_seq_id": np.int32,
    "seq_ids": np.int32,
    "logits": np.int8,
}


class ForwardOutput(NamedTuple):
    """Hidden states after the final norm `[tokens, hidden]` and raw logits `[tokens, vocabulary]`, float32."""

    states: Tensor
    logits: Tensor


class ModelRunner:
    """Runs tokens of any sequences in one pass. Not thread-safe.

    All sequences share one KV cache buffer; a token in several sequences is stored once, so copying a sequence is free.

    Attributes:
        context_tokens, cache_tokens, threads: see `LlamaOptions`.
        max_output_tokens: maximum number of tokens in a pass with outputs.
    """

    def __init__(self, model: Any, settings: LlamaSettings, cut: CutModel | None = None) -> None:
        """Takes ownership of `model`, a llama.cpp handle, if it succeeds.

        Args:
            cut: describes `model`, if its head is cut.

        Raises:
            EngineError: The KV cache does not fit in memory.
        """
        self._llama = llama = import_llama_cpp()
        self._model = model
        self.context_tokens, self.cache_tokens = settings.context_tokens, settings.cache_tokens
        self.threads = settings.threads
        self.hidden_size = int(llama.llama_model_n_embd(model))
        self.num_layers = int(llama.llama_model_n_layer(model))
        self._head_size = int(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model)))
        self.vocabulary_size = self._head_size if cut is None else cut.tokens.vocabulary_size
        self._cut = cut
        self._kept_ids = torch.tensor(cut.tokens.ids if cut else ())
        self.max_output_tokens = min(
            MAX_BATCH_TOKENS, max(MAX_SEQUENCES, _MAX_LOGITS // self.vocabulary_size)
        )
        LOG.clear()
        self._context = llama.llama_init_from_model(model, self._context_params(settings))
        if not self._context:
            raise EngineError(
                f"llama.cpp cannot allocate a KV cache for {self.cache_tokens} tokens ({LOG.last()}); "
                "reduce context_tokens or cache_tokens"
            )
        self._memory = llama.llama_get_memory(self._context)
        self._unused_sequences = list(range(MAX_SEQUENCES))
        self._arrays = {name: np.zeros(MAX_BATCH_TOKENS, dtype) for name, dtype in _BATCH_FIELDS.items()}
        self._arrays["n_seq_id"][:] = 1
        if cut is not None:
            self._arrays["embd"] = np.zeros((MAX_BATCH_TOKENS, self.hidden_size), np.float32)
        self._batch = self._new_batch()
        self._select_input("token" if cut is None else "embd")

    def metadata(self, key: str) -> str:
        """Returns a text of the file's metadata; "" if it has none under this key."""
        buffer = ctypes.create_string_buffer(_MAX_METADATA_BYTES)
        length = self._llama.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if length >= 0 else ""

    def forward(
        self, token_ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], with_output: bool
    ) -> ForwardOutput | None:
        """Runs the model on tokens, each at a position of a sequence, and adds them to the KV cache.

        Returns:
            With `with_output`, the output of all tokens, valid until the next pass.

        Raises:
            EngineError: llama.cpp failed. The state of the given sequences is then undefined.
        """
        if self._cut is None:
            self._arrays["token"][: len(token_ids)] = token_ids
        else:  # llama.cpp knows the kept tokens only
            self._arrays["embd"][: len(token_ids)] = self._cut.embeddings.rows(token_ids)
        return self._forward(positions, sequences, with_output)

    def embeddings_work(self) -> bool:
        """Returns whether a model with a cut head gives the same states for embeddings as for its own token ids.

        Some architectures scale the embeddings of token ids only.
        """
        assert self._cut is not None
        count = min(_TEST_TOKENS, self._head_size)
        sequence = self.new_sequence()
        outputs: list[Tensor] = []
        for input_name in ("token", "embd"):
            self._select_input(input_name)
            self._arrays["token"][:count] = range(count)
            self._arrays["embd"][:count] = self._cut.embeddings.rows(self._cut.tokens.ids[:count])
            output = self._forward(range(count), [sequence] * count, with_output=True)
            assert output is not None
            outputs.append(output.states.clone())
            self.truncate(sequence, 0)
        self.free_sequence(sequence)
        expected, found = outputs
        return torch.allclose(found, expected, rtol=0, atol=_TEST_TOLERANCE * float(expected.abs().max()))

    def _forward(
        self, positions: Sequence[int], sequences: Sequence[int], with_output: bool
    ) -> ForwardOutput | None:
        """Runs the model on the tokens in the batch's arrays, see `forward`."""
        count = len(positions)
        self._arrays["pos"][:count] = positions
        self._arrays["seq_ids"][:count] = sequences
        self._arrays["logits"][:count] = with_output
        self._batch.n_tokens = count
        LOG.clear()
        self._llama.llama_set_embeddings(self._context, with_output)
        code = self._llama.llama_decode(self._context, self._batch)
        if code != 0:
            raise EngineError(f"llama.cpp failed with code {code}: {LOG.last()}")
        if not with_output:
            return None
        states = self._llama.llama_get_embeddings(self._context)
        logits = _view(self._llama.llama_get_logits(self._context), count, self._head_size)
        if self._cut is not None:
            logits = self._cut.tokens.widen(logits, self._kept_ids)
        return ForwardOutput(_view(states, count, self.hidden_size), logits)

    def new_sequence(self) -> int:
        """Returns the number of an empty sequence."""
        return self._unused_sequences.pop()

    def free_sequence(self, sequence: int) -> None:
        """Empties a sequence and returns its number."""
        self._llama.llama_memory_seq_rm(self._memory, sequence, 0, _TO_THE_END)
        self._unused_sequences.append(sequence)

    def truncate(self, sequence: int, num_tokens: int) -> int:
        """Truncates a sequence; returns the tokens left: `num_tokens`, or 0 where llama.cpp cannot truncate."""
        if self._llama.llama_memory_seq_rm(self._memory, sequence, num_tokens, _TO_THE_END):
            return num_tokens
        self._llama.llama_memory_seq_rm(self._memory, sequence, 0, _TO_THE_END)
        return 0

    def copy(self, source: int, sink: int, num_tokens: int) -> None:
        """Copies the first tokens of a sequence to an empty one."""
        if num_tokens > 0:
            self._llama.llama_memory_seq_cp(self._memory, source, sink, 0, num_tokens)

    def length(self, sequence: int) -> int:
        """Returns the number of tokens of a sequence."""
        return int(self._llama.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def close(self) -> None:
        """Frees context and model."""
        self._llama.llama_free(self._context)
        self._llama.llama_model_free(self._model)

    def _context_params(self, settings: LlamaSettings) -> Any:
        llama = self._llama
        params = llama.llama_context_default_params()
        params.n_ctx = self.cache_tokens
        params.n_batch = params.n_ubatch = MAX_BATCH_TOKENS
        params.n_seq_max = MAX_SEQUENCES
        params.n_outputs_max = self.max_output_tokens
        params.kv_unified = True  # sequences share the tokens they have in common
        params.swa_full = True  # sliding windows keep all tokens, so that they can be truncated
        params.embeddings = True
        params.pooling_type = llama.LLAMA_POOLING_TYPE_NONE
        params.type_k = params.type_v = llama.GGML_TYPE_F16
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_AUTO
        if settings.exact:
            params.type_k = params.type_v = llama.GGML_TYPE_F32
            params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.offload_kqv = settings.on_gpu
        params.n_threads = params.n_threads_batch = self.threads
        return params

    def _new_batch(self) -> Any:
        """Returns a `llama_batch` over our arrays. Each token belongs to one sequence."""
        pointers = {name: array.ctypes.data for name, array in self._arrays.items()}
        first = pointers.pop("seq_ids")
        self._lists = np.arange(MAX_BATCH_TOKENS, dtype=np.uint64) * np.uint64(4) + np.uint64(first)
        batch = self._llama.llama_batch()
        pointers["seq_id"] = self._lists.ctypes.data
        kinds = dict(batch._fields_)
        self._pointers = {name: ctypes.cast(address, kinds[name]) for name, address in pointers.items()}
        for name, pointer in self._pointers.items():
            setattr(batch, name, pointer)
        return batch

    def _select_input(self, name: str) -> None:
        """Makes llama.cpp read token ids ("token") or embeddings ("embd"); the other pointer must be null."""
        for field in ("token", "embd"):
            setattr(self._batch, field, self._pointers[field] if field == name else None)


def _view(pointer: Any, rows: int, columns: int) -> Tensor:
    """Returns a tensor over llama.cpp's memory."""
    floats = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
    return torch.from_numpy(np.ctypeslib.as_array(floats, (rows, columns)))
