"""Tensors that pretend to be on another device, and scripted pairs on two devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.records import Generation, Reading, Score
from tests.support.scripted_pairs import FixedProbe, draft_says, target_says
from tests.support.vocabularies import make_vocabulary

CPU = torch.device("cpu")


class PlacedTensor(Tensor):
    """A CPU tensor that says it is on `place`, and refuses operations with tensors of other devices as torch does."""

    place: torch.device

    @classmethod
    def of(cls, tensor: Tensor, place: torch.device) -> Tensor:
        if place.type == "mps" and tensor.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support it"
            )
        placed = tensor.as_subclass(cls)
        placed.place = place
        return placed

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.device.__get__:  # type: ignore[attr-defined]
            return args[0].place
        places = {_place(tensor) for tensor in _tensors((args, kwargs))}
        with torch._C.DisableTorchFunctionSubclass():
            if func in (Tensor.to, Tensor.cpu):
                destination = CPU if func is Tensor.cpu else _destination(args, kwargs)
                others = [value for value in args[1:] if isinstance(value, torch.dtype)]
                moved = args[0].as_subclass(Tensor).to(*others)
                return cls.of(moved, destination or args[0].place)
            if len(places) > 1:
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found {sorted(map(str, places))}"
                )
            return _placed(func(*args, **kwargs), places.pop() if places else CPU)


def _place(tensor: Tensor) -> torch.device:
    return tensor.place if isinstance(tensor, PlacedTensor) else tensor.device


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yields the tensors of nested arguments. Tensors of one CPU number mix with every device, as in torch."""
    if isinstance(value, Tensor):
        if isinstance(value, PlacedTensor) or value.ndim:
            yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))


def _destination(args: Any, kwargs: Any) -> torch.device | None:
    for value in (*args[1:], *kwargs.values()):
        if isinstance(value, torch.device | str):
            return torch.device(value)
        if isinstance(value, Tensor):
            return _place(value)
    return None


def _placed(result: Any, place: torch.device) -> Any:
    if isinstance(result, Tensor):
        return PlacedTensor.of(result, place)
    return type(result)(_placed(item, place) for item in result) if type(result) in (list, tuple) else result


class PlacedEngine(ScriptedEngine):
    """A scripted engine whose results are on a device of its own."""

    def __init__(self, next_probabilities: Any, vocabulary_size: int, place: str) -> None:
        super().__init__(next_probabilities, vocabulary_size)
        self._place = torch.device(place)

    async def _generate(self, request: Any) -> list[Generation]:
        return [self._on_place(generation) for generation in await super()._generate(request)]

    async def _score(self, request: Any) -> list[Score]:
        return [self._on_place(score) for score in await super()._score(request)]

    def _on_place(self, reading: Any) -> Any:
        assert isinstance(reading, Reading)
        values = {field.name: getattr(reading, field.name) for field in fields(reading)}
        placed = {
            name: PlacedTensor.of(value, self._place)
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
        return replace(reading, **placed)


def make_pair_on(target_place: str, draft_place: str) -> Pair:
    vocabulary = make_vocabulary()
    return Pair(
        Model(PlacedEngine(target_says, 9, target_place), vocabulary),
        Model(PlacedEngine(draft_says, 9, draft_place), vocabulary),
        FixedProbe(0.5),
        FixedProbe(1.0),
    )
