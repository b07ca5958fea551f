"""What `semanticspec serve` can be told, by option or in a YAML file; checked before a model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semanticspec.config import AUTO_OPTIMIZATIONS, DecodingConfig, preset, with_options
from semanticspec.engines.registry import DEFAULT_ENGINE, EngineChoice
from semanticspec.errors import ConfigError


class ServerSettings(BaseModel):
    """Settings of a server. Names are those of the options, with underscores.

    Attributes:
        api_key: if given, clients have to send it as `Authorization: Bearer ...`. ASCII, no spaces.
        max_model_len: longest prompt and output together, in target tokens; None = the target's context.
        max_concurrent_requests: how many outputs are written at a time; a request with n=4 counts as four.
        max_queued_requests: how many more may wait; beyond that the answer is 429.
        request_timeout_s: from arrival to the last token, waiting included.
        shutdown_timeout_s: how long requests under way may take to finish after SIGTERM.
        max_body_bytes: longest request body. 4 MiB hold a prompt of about a million tokens.
        engine: of both models, see `engines.table`; target_engine and draft_engine of one of them.
        allowed_origins: web pages of which origins may use the server (CORS); none by default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    target: str | None = None
    draft: str | None = None
    target_probe: str | None = None
    draft_probe: str | None = None
    engine: str = DEFAULT_ENGINE
    target_engine: str | None = None
    draft_engine: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    target_device: str | None = None
    draft_device: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: str | None = Field(default=None, repr=False, pattern=r"^[!-~]+$")
    served_model_name: str | None = Field(default=None, min_length=1)
    max_model_len: int | None = Field(default=None, ge=2)
    max_concurrent_requests: int = Field(default=16, ge=1)
    max_queued_requests: int = Field(default=64, ge=0)
    request_timeout_s: float = Field(default=600.0, gt=0)
    shutdown_timeout_s: float = Field(default=30.0, ge=0)
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024)
    allowed_origins: tuple[str, ...] = ()
    preset: str = "default"
    rule: str | None = None
    strictness: float | None = None
    optimizations: str = AUTO_OPTIMIZATIONS
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None

    @property
    def engines(self) -> tuple[str, str]:
        """The target's engine and the draft's."""
        return self.target_engine or self.engine, self.draft_engine or self.engine

    @property
    def default_optimizations(self) -> bool:
        """Whether the pair decides which optimizations are on."""
        return self.optimizations == AUTO_OPTIMIZATIONS and self.preset == "default"

    def decoding(self) -> DecodingConfig:
        """How requests are decoded that do not ask for something else; with optimizations only if they are named.

        Raises:
            ConfigError: a setting cannot work.
        """
        return with_options(
            preset(self.preset),
            rule=self.rule,
            strictness=self.strictness,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            optimizations=self.optimizations,
        )


def read_settings(file: Path | None, options: dict[str, Any]) -> ServerSettings:
    """Settings of a YAML file, if there is one, and of the command line, which wins.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or out of range.
    """
    settings = _read_file(file) if file is not None else {}
    settings |= {name: value for name, value in options.items() if value not in (None, [])}
    try:
        checked = ServerSettings.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(ServerSettings.model_fields))
            raise ConfigError(f"there is no setting {name!r} in {file}; there are {known}") from None
        got = "what was given" if name == "api_key" else repr(first["input"])
        raise ConfigError(f"{name} is {got}: {first['msg']}") from None
    for engine in checked.engines:
        EngineChoice.parse(engine)
    checked.decoding()
    return checked


def _read_file(file: Path) -> dict[str, Any]:
    """The file's settings; `max-model-len` is `max_model_len`."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"--config {file} cannot be read: {line}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config {file} holds no settings; expected lines such as `port: 8000`")
    return {str(name).replace("-", "_"): value for name, value in content.items()}
