"""Settings of `semanticspec serve`, from the command line or a YAML file; checked before a model is loaded."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from semanticspec.config import (
    AUTO_OPTIMIZATIONS,
    DecodingConfig,
    PresetName,
    RuleName,
    preset,
    with_options,
)
from semanticspec.engines.registry import DEFAULT_ENGINE, EngineChoice
from semanticspec.errors import ConfigError, first_line
from semanticspec.output.validation import validation_message


class ServerSettings(BaseModel):
    """Settings of a server. Names are those of the options, with underscores.

    Attributes:
        engine: of both models, see `engines.registry`; target_engine and draft_engine override it for one of them.
        api_key: if set, clients must send it as `Authorization: Bearer <key>`.
        max_model_len: maximum of prompt and output together, in target tokens; None for the target's context length.
        max_concurrent_requests: outputs decoded at a time; a request with n=4 counts as four.
        max_queued_requests: outputs that may wait; requests beyond that get a 429.
        request_timeout_s: from a request's arrival to its last token, including time in the queue.
        shutdown_timeout_s: how long running requests may take to finish after SIGTERM.
        max_body_bytes: maximum length of a request body.
        allowed_origins: origins of web pages that may use the server (CORS).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pair: str | None = None
    target: str | None = None
    draft: str | None = None
    target_probe: str | None = None
    draft_probe: str | None = None
    engine: str = DEFAULT_ENGINE
    target_engine: str | None = None
    draft_engine: str | None = None
    dtype: str = "auto"
    target_dtype: str | None = None
    draft_dtype: str | None = None
    device: str = "auto"
    target_device: str | None = None
    draft_device: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: str | None = Field(default=None, repr=False)
    served_model_name: str | None = Field(default=None, min_length=1)
    max_model_len: int | None = Field(default=None, ge=2)
    max_concurrent_requests: int = Field(default=16, ge=1)
    max_queued_requests: int = Field(default=64, ge=0)
    request_timeout_s: float = Field(default=600.0, gt=0)
    shutdown_timeout_s: float = Field(default=30.0, ge=0)
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024)
    allowed_origins: tuple[str, ...] = ()
    preset: PresetName = "default"
    rule: RuleName | None = None
    strictness: float | None = None
    optimizations: str = AUTO_OPTIMIZATIONS
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None

    @field_validator("engine", "target_engine", "draft_engine")
    @classmethod
    def _check_engine(cls, engine: str | None) -> str | None:
        if engine is not None:
            EngineChoice.parse(engine)
        return engine

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, key: str | None) -> str | None:
        if key is not None and not (key and all("!" <= character <= "~" for character in key)):
            raise ValueError("expected printable ASCII characters without spaces")  # without showing the key
        return key

    @model_validator(mode="after")
    def _check_decoding(self) -> ServerSettings:
        self.decoding()
        return self

    @property
    def engines(self) -> tuple[str, str]:
        """Engines of target and draft."""
        return self.target_engine or self.engine, self.draft_engine or self.engine

    def decoding(self) -> DecodingConfig:
        """Returns the configuration of requests that do not change it. Speculation is adaptive unless told otherwise.

        Raises:
            ConfigError: the settings contradict each other.
        """
        config = with_options(
            preset(self.preset),
            rule=self.rule,
            strictness=self.strictness,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            optimizations=None if self.optimizations == AUTO_OPTIMIZATIONS else self.optimizations,
        )
        adapts = self.optimizations == AUTO_OPTIMIZATIONS and self.preset == "default"
        return replace(config, adaptive=True) if adapts else config


def read_settings(file: Path | None, options: dict[str, Any]) -> ServerSettings:
    """Reads settings from a YAML file and the command line, which overrides the file.

    Args:
        file: may use dashes or underscores in names.
        options: None and empty lists mean that an option was not given.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or invalid.
    """
    settings = _read_file(file) if file is not None else {}
    settings |= {name: value for name, value in options.items() if value not in (None, [])}
    try:
        return ServerSettings.model_validate(settings)
    except ValidationError as error:
        origin = f"--config {file}" if file is not None else "options"
        schema = ServerSettings.model_json_schema()
        raise ConfigError(validation_message(error, origin, schema)) from None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {file}: cannot be read: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--config {file}: no settings found; expected lines such as `port: 8000`")
    settings = {str(name).replace("-", "_"): value for name, value in content.items()}
    if "levers" in settings and "optimizations" not in settings:
        warnings.warn(
            f"--config {file}: `levers` is now called `optimizations`; the old name will be removed in 0.2",
            FutureWarning,
            stacklevel=2,
        )
        settings["optimizations"] = settings.pop("levers")
    return settings
