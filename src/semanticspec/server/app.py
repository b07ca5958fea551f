"""Assembles the application: endpoints, error handlers and guards."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from semanticspec import __version__
from semanticspec.decoding.pair import Pair
from semanticspec.server.api.errors import install_handlers
from semanticspec.server.api.guards import BodyLimit, Guard, is_local, require_api_key, require_local_host
from semanticspec.server.api.routes import router
from semanticspec.server.service import Service
from semanticspec.server.settings import ServerSettings


def create_app(pair: Pair, settings: ServerSettings) -> FastAPI:
    """Returns the application that serves a pair; its `state.service` is the `Service`.

    Raises:
        ConfigError, ProbeError, EngineError: the pair cannot run with these settings.
    """
    # Without /docs: FastAPI's page loads scripts from another site.
    app = FastAPI(title="semanticspec", version=__version__, docs_url=None, redoc_url=None)
    app.state.service = Service(pair, settings)
    app.include_router(router)
    install_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.api_key is not None:
        app.add_middleware(Guard, check=require_api_key(settings.api_key))
    elif is_local(settings.host):
        app.add_middleware(Guard, check=require_local_host)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app
