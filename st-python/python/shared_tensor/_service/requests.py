"""Requests of the 0.2 releases as dicts, for programs that hand them to a server object."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

from shared_tensor._service import failures
from shared_tensor.errors import (
    SharedTensorProtocolError,
    SharedTensorRemoteError,
    SharedTensorSerializationError,
    SharedTensorServerError,
)

if TYPE_CHECKING:
    from shared_tensor.client import SharedTensorClient
    from shared_tensor.server import SharedTensorServer


def answer(server: SharedTensorServer, request: Any) -> dict[str, Any]:
    """Answer one request."""
    try:
        return {"ok": True, "result": _dispatch(server, request)}
    except Exception as error:
        return {"ok": False, "error": _described(error)}


def _described(error: Exception) -> dict[str, Any]:
    if isinstance(error, SharedTensorRemoteError):
        message = str(error).partition("]: ")[2]
        return {
            "code": error.code,
            "message": message,
            "type": error.error_type,
            "data": error.data,
        }
    code, name, text, _ = failures.described(error)
    return {"code": code, "message": text, "type": name, "data": None}


def _dispatch(server: SharedTensorServer, request: Any) -> Any:
    if not isinstance(request, dict):
        raise SharedTensorProtocolError(f"a request is a dict, got {type(request).__name__}")
    method, params = request.get("method"), request.get("params") or {}
    if not method:
        raise SharedTensorProtocolError("Missing required field 'method'")
    if not isinstance(params, dict):
        raise SharedTensorProtocolError(f"params is a dict, got {type(params).__name__}")
    if method == "ping":
        return {"pong": True, "timestamp": time.time()}
    if method == "get_server_info":
        return server._info()
    if method == "list_endpoints":
        return server.provider.list_endpoints()
    known = _METHODS.get(method)
    if known is None:
        raise SharedTensorProtocolError(f"Unknown RPC method {method!r}")
    return known(server, params)


def _required(params: dict[str, Any], name: str) -> Any:
    if not params.get(name):
        raise SharedTensorProtocolError(f"Missing required parameter {name!r}")
    return params[name]


def _arguments(params: dict[str, Any]) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    from shared_tensor import utils

    endpoint, encoding = _required(params, "endpoint"), _required(params, "encoding")
    if encoding not in (utils.CONTROL_ENCODING, utils.TORCH_ENCODING):
        raise SharedTensorSerializationError(f"Unsupported payload encoding: {encoding}")
    args = utils.deserialize_payload(encoding, _required(params, "args_bytes"))
    kwargs = utils.deserialize_payload(encoding, _required(params, "kwargs_bytes"))
    if encoding == utils.CONTROL_ENCODING and (args or kwargs):
        raise SharedTensorProtocolError(f"{encoding} is for calls without arguments")
    return endpoint, tuple(args), dict(kwargs)


def client_of(server: SharedTensorServer) -> SharedTensorClient:
    """Give a client of this very server, which keeps what it gets until the server ends."""
    from shared_tensor.client import SharedTensorClient

    if server._own_client is None:
        path = server._address()
        if path is None:
            raise SharedTensorServerError("the server does not run: start it")
        server._own_client = SharedTensorClient(device=server.provider.device, socket_path=path)
    return server._own_client


@dataclass
class EndpointResult:
    """What an endpoint returned, and what it is known by if it is managed."""

    value: Any
    object_id: str | None = None


def result_of(value: Any) -> EndpointResult | None:
    """Take a handle apart."""
    from shared_tensor.managed_object import SharedObjectHandle

    if isinstance(value, SharedObjectHandle):
        return EndpointResult(value.value, value.object_id)
    return None if value is None else EndpointResult(value)


def encoded(result: EndpointResult | None, server_id: str | None = None) -> dict[str, Any]:
    """Give a result as the 0.2 releases sent it."""
    from shared_tensor import utils

    value = result.value if result is not None else None
    encoding, content = (None, None) if value is None else utils.serialize_payload(value)
    return {
        "encoding": encoding,
        "payload_bytes": content,
        "object_id": result.object_id if result is not None else None,
        "server_id": server_id,
    }


def _encoded(server: SharedTensorServer, value: Any) -> dict[str, Any]:
    result = result_of(value)
    is_managed = result is not None and result.object_id is not None
    return encoded(result, server.server_id if is_managed else None)


def _call(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    endpoint, args, kwargs = _arguments(params)
    server.provider.get_endpoint(endpoint)
    if not server.running:
        return _encoded(server, server.provider.invoke_local(endpoint, args=args, kwargs=kwargs))
    return _encoded(server, client_of(server)._call(endpoint, args, kwargs))


def _submit(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    endpoint, args, kwargs = _arguments(params)
    client = client_of(server)
    return client.get_task_status(client._submit(endpoint, args, kwargs))


def _release(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    object_id = _required(params, "object_id")
    client = client_of(server) if server.running else None
    is_released = client is not None and client.release(object_id)
    left = client.get_object_info(object_id) if client is not None else None
    refcount = left["refcount"] if left is not None else 0
    return {
        "object_id": object_id,
        "released": is_released,
        "destroyed": is_released and left is None,
        "refcount": refcount,
    }


def _release_many(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    ids = _required(params, "object_ids")
    return {"released": {it: _release(server, {"object_id": it})["released"] for it in ids}}


def _object_info(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    object_id = _required(params, "object_id")
    return {"object": client_of(server).get_object_info(object_id) if server.running else None}


def _invalidate_call(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    endpoint, args, kwargs = _arguments(params)
    return {"invalidated": server.invalidate_call_cache(endpoint, args=args, kwargs=kwargs)}


def _invalidate_endpoint(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    return {"invalidated": server.invalidate_endpoint_cache(_required(params, "endpoint"))}


def _get_task(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    return client_of(server).get_task_status(_required(params, "task_id"))


def _get_task_result(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    return _encoded(server, client_of(server).get_task_result(_required(params, "task_id")))


def _wait_task(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    return client_of(server).wait_task(_required(params, "task_id"), params.get("timeout"))


def _cancel_task(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    task_id = _required(params, "task_id")
    return {"task_id": task_id, "cancelled": client_of(server).cancel_task(task_id)}


def _list_tasks(server: SharedTensorServer, params: dict[str, Any]) -> Any:
    return client_of(server).list_tasks(params.get("status"))


_METHODS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "call": _call,
    "submit": _submit,
    "release_object": _release,
    "release_objects": _release_many,
    "get_object_info": _object_info,
    "invalidate_call_cache": _invalidate_call,
    "invalidate_endpoint_cache": _invalidate_endpoint,
    "get_task": _get_task,
    "get_task_result": _get_task_result,
    "wait_task": _wait_task,
    "cancel_task": _cancel_task,
    "list_tasks": _list_tasks,
}
