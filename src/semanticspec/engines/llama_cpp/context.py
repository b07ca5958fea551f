"""A loaded GGUF model and its key/value cache: passes over batches of tokens, and what is kept by sequence."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semanticspec.engines.llama_cpp.library import LOG, bindings
from semanticspec.engines.llama_cpp.options import LlamaSettings
from semanticspec.errors import EngineError

MAX_SEQUENCES = 64
SILENT_TOKENS = 256
"""Most tokens of a pass that gives nothing back: other calls get their turn in between."""

# Where states are asked for, llama.cpp computes logits of every token. So many numbers of them at a time at most: 64 MB
# in float32.
_LOGITS_AT_ONCE = 2**24
_TO_THE_END = -1


class LlamaContext:
    """Runs tokens of any sequences in one pass. All sequences share one buffer of keys and values.

    A token of several sequences is kept once: copying a sequence costs nothing. Not safe for use by several threads.

    Attributes:
        context_tokens, cache_tokens, threads: see `LlamaOptions`.
        max_spoken: most tokens of a pass that gives states and logits.
    """

    def __init__(self, model: Any, settings: LlamaSettings) -> None:
        """Owns `model`, a handle of llama.cpp, once this succeeds.

        Raises:
            EngineError: there is not enough memory.
        """
        self._llama = llama = bindings()
        self._model = model
        self.context_tokens, self.cache_tokens = settings.context_tokens, settings.cache_tokens
        self.threads = settings.threads
        self.hidden_size = int(llama.llama_model_n_embd(model))
        self.num_layers = int(llama.llama_model_n_layer(model))
        self.vocabulary_size = int(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model)))
        self.max_spoken = min(SILENT_TOKENS, max(MAX_SEQUENCES, _LOGITS_AT_ONCE // self.vocabulary_size))
        LOG.clear()
        self._context = llama.llama_init_from_model(model, self._parameters(settings))
        if not self._context:
            raise EngineError(
                f"llama.cpp cannot make room for keys and values of {self.cache_tokens} tokens ({LOG.last()}); "
                "load with fewer context_tokens or cache_tokens"
            )
        self._memory = llama.llama_get_memory(self._context)
        self._free_sequences = list(range(MAX_SEQUENCES))
        self._arrays = {name: np.zeros(SILENT_TOKENS, dtype) for name, dtype in _FIELDS.items()}
        self._arrays["n_seq_id"][:] = 1
        self._batch = self._new_batch()

    def decode(
        self, token_ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], speaks: bool
    ) -> tuple[Tensor, Tensor] | None:
        """Reads tokens into the cache, each at its position of its sequence.

        Returns:
            If it `speaks`, states after the final norm `[tokens, hidden]` and raw logits `[tokens, vocabulary]`,
            float32, valid until the next pass; else nothing.

        Raises:
            EngineError: llama.cpp failed. What of the tokens is in the cache is open then.
        """
        count = len(token_ids)
        self._arrays["token"][:count] = token_ids
        self._arrays["pos"][:count] = positions
        self._arrays["seq_ids"][:count] = sequences
        self._arrays["logits"][:count] = speaks
        self._batch.n_tokens = count
        LOG.clear()
        self._llama.llama_set_embeddings(self._context, speaks)
        code = self._llama.llama_decode(self._context, self._batch)
        if code != 0:
            raise EngineError(f"llama.cpp failed while it worked (code {code}): {LOG.last()}")
        if not speaks:
            return None
        states = self._llama.llama_get_embeddings(self._context)
        logits = self._llama.llama_get_logits(self._context)
        return _view(states, count, self.hidden_size), _view(logits, count, self.vocabulary_size)

    @property
    def num_free_sequences(self) -> int:
        return len(self._free_sequences)

    def new_sequence(self) -> int:
        """An empty sequence's number."""
        return self._free_sequences.pop()

    def free_sequence(self, sequence: int) -> None:
        """Empties a sequence; its number may be given out again."""
        self._llama.llama_memory_seq_rm(self._memory, sequence, 0, _TO_THE_END)
        self._free_sequences.append(sequence)

    def cut(self, sequence: int, num_tokens: int) -> bool:
        """Forgets all but the first tokens of a sequence.

        Returns:
            Whether that was possible. If not, all of it is forgotten.
        """
        if self._llama.llama_memory_seq_rm(self._memory, sequence, num_tokens, _TO_THE_END):
            return True
        self._llama.llama_memory_seq_rm(self._memory, sequence, 0, _TO_THE_END)
        return False

    def copy(self, source: int, sink: int, num_tokens: int) -> None:
        """Makes an empty sequence hold the first tokens of another one."""
        if num_tokens > 0:
            self._llama.llama_memory_seq_cp(self._memory, source, sink, 0, num_tokens)

    def length(self, sequence: int) -> int:
        """How many tokens of a sequence are kept."""
        return int(self._llama.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def close(self) -> None:
        """Gives all memory back; the object cannot be used any more."""
        self._llama.llama_free(self._context)
        self._llama.llama_model_free(self._model)

    def _parameters(self, settings: LlamaSettings) -> Any:
        llama = self._llama
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = self.cache_tokens
        parameters.n_batch = parameters.n_ubatch = SILENT_TOKENS
        parameters.n_seq_max = MAX_SEQUENCES
        parameters.n_outputs_max = self.max_spoken
        # One buffer for all sequences, so that copies share what they have in common.
        parameters.kv_unified = True
        # Sliding windows keep all tokens, so that they can be cut back.
        parameters.swa_full = True
        parameters.embeddings = True
        parameters.pooling_type = llama.LLAMA_POOLING_TYPE_NONE
        parameters.type_k = parameters.type_v = llama.GGML_TYPE_F16
        parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_AUTO
        if settings.exact:
            parameters.type_k = parameters.type_v = llama.GGML_TYPE_F32
            parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.offload_kqv = settings.on_gpu
        parameters.n_threads = parameters.n_threads_batch = self.threads
        return parameters

    def _new_batch(self) -> Any:
        """llama.cpp's own structure over our arrays; every token's list of sequences is one number long."""
        pointers = {name: array.ctypes.data for name, array in self._arrays.items()}
        first = pointers.pop("seq_ids")
        self._lists = np.arange(SILENT_TOKENS, dtype=np.uint64) * np.uint64(4) + np.uint64(first)
        batch = self._llama.llama_batch()
        pointers["seq_id"] = self._lists.ctypes.data
        kinds = dict(batch._fields_)
        for name, address in pointers.items():
            setattr(batch, name, ctypes.cast(address, kinds[name]))
        return batch


_FIELDS: dict[str, Any] = {
    "token": np.int32,
    "pos": np.int32,
    "n_seq_id": np.int32,
    "seq_ids": np.int32,
    "logits": np.int8,
}


def _view(pointer: Any, rows: int, columns: int) -> Tensor:
    """A tensor over llama.cpp's own memory."""
    floats = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
    return torch.from_numpy(np.ctypeslib.as_array(floats, (rows, columns)))
