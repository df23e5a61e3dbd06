"""Describe the routes as an OpenAPI 3.1 document, which ``GET /openapi.json`` answers with."""

from .document import document, openapi

__all__ = ["document", "openapi"]
