"""The API's description: FastAPI's, with every answer that our own layers give."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tenantsync.web.problems import ProblemDocument, responses

TAGS = [
    {"name": "auth", "description": "Logging in and out, staying in, and who one is."},
    {"name": "users", "description": "The people who log in."},
    {"name": "processes", "description": "What people watch and answer, as it happens."},
    {"name": "tasks", "description": "Asking for work, and what became of it."},
    {"name": "health", "description": "For orchestrators and monitoring."},
]
BODY = (408, 413)
ALWAYS = (500, 503)


def install(app: FastAPI) -> None:
    """Describe the API when it is first asked for. Pages are no part of it."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _description(app)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _description(app: FastAPI) -> dict[str, Any]:
    whole = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=TAGS,
        separate_input_output_schemas=False,
    )
    schemas = whole.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs", {})
    schemas["ProblemDocument"] = problem
    for operations in whole["paths"].values():
        for method, operation in operations.items():
            _complete(method, operation)
    return whole


def _complete(method: str, operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
    given: dict[str, Any] = operation["responses"]
    needed = set(ALWAYS)
    if operation.get("security"):
        needed |= {401} if method == "get" else {401, 403}
    if "requestBody" in operation:
        needed |= {*BODY, 422}
    if operation.get("parameters") or "requestBody" in operation:
        needed |= {422}
    elif "422" in given:
        del given["422"]
    for status, described in responses(*sorted(needed)).items():
        if str(status) not in given or _is_fastapis(given[str(status)]):
            given[str(status)] = described
    operation["responses"] = dict(sorted(given.items()))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Parameters are left out; none of them is sent as null."""
    options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(options) != 1 or len(options) == len(schema["anyOf"]):
        return schema
    return {**{key: value for key, value in schema.items() if key != "anyOf"}, **options[0]}


def _is_fastapis(described: dict[str, Any]) -> bool:
    schema = described.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).endswith("/HTTPValidationError")
