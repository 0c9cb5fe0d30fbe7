"""The dashboard: pages made on the server."""

from fastapi import APIRouter


def router() -> APIRouter:
    """All pages."""
    return APIRouter()
