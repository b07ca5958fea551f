"""Messages about files that do not have the expected content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, with_config

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.output.validation import STRICT, parse_json, validation_message


@dataclass(frozen=True, slots=True)
class Layer:
    width: int = 1

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"width is {self.width}; expected 1 or more")


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Network:
    name: str
    kind: Literal["mlp", "linear"] = "mlp"
    layers: tuple[Layer, ...] = ()
    named: dict[str, Layer] = field(default_factory=dict)
    head: Layer | None = None


def test_json_becomes_the_dataclass() -> None:
    text = '{"name": "a", "layers": [{"width": 3}], "head": null, "named": {"x": {}}}'
    assert parse_json(Network, text, "file") == Network("a", layers=(Layer(3),), named={"x": Layer()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", r"content is \[\]; expected an object"),
        ("{}", "name is missing"),
        ('{"name": 1}', "name is 1; expected a valid string"),
        ('{"name": "a", "kind": "cnn"}', "kind is 'cnn'; expected 'mlp' or 'linear'"),
        ('{"name": "a", "nmae": 1}', "unknown key nmae; expected one of name, kind, layers, named, head"),
        ('{"name": "a", "layers": [{"size": 1}]}', r"unknown key layers.0.size; expected one of width"),
        ('{"name": "a", "named": {"x": {"size": 1}}}', r"unknown key named.x.size; expected one of width"),
        ('{"name": "a", "head": {"size": 1}}', r"unknown key head.size; expected one of width"),
        ('{"name": "a", "layers": [{"width": true}]}', r"layers.0.width is True; expected a valid integer"),
        ('{"name": "a", "head": {"width": 0}}', "head: width is 0; expected 1 or more"),
        ('{"name": "a", "kind": "' + "x" * 500 + '"}', r"kind is 'x{1,80}\.\.\.; expected"),
    ],
)
def test_errors_name_file_field_value_and_expectation_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ProbeError, match=f"^some/file.json: .*{message}") as caught:
        parse_json(Network, text, "some/file.json", raises=ProbeError, hint="copy it again")
    assert str(caught.value).endswith("; copy it again")
    assert "\n" not in str(caught.value)


def test_only_the_first_errors_are_listed() -> None:
    layers = ", ".join('{"width": "a"}' for _ in range(5))
    with pytest.raises(ConfigError, match=r"and 2 more errors$"):
        parse_json(Network, f'{{"name": "a", "layers": [{layers}]}}', "file")


def test_models_are_described_too() -> None:
    class Row(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        seconds: float

    with pytest.raises(ValidationError) as caught:
        Row.model_validate({"seconds": 1, "minutes": 2})
    assert validation_message(caught.value, "rows.jsonl") == "rows.jsonl: unknown key minutes"
