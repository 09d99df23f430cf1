"""The other process: runs the code it is sent, a request a line, and answers a line each."""

from __future__ import annotations

import ast
import json
import os
import sys
import traceback
from typing import Any


def plain(value: Any) -> Any:
    """Turn an answer into what JSON can carry; what it cannot carry becomes its text."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    return str(value)


def run(code: str, scope: dict[str, Any]) -> Any:
    """Run statements and return the value of the last one if it is an expression."""
    tree = ast.parse(code)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "<peer>", "exec"), scope)
        return None
    tree.body.pop()
    exec(compile(tree, "<peer>", "exec"), scope)
    return eval(compile(ast.Expression(last.value), "<peer>", "eval"), scope)


def answer(request: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
    """Run one request; an exception is an answer too."""
    scope.update(request["values"])
    try:
        return {"value": plain(run(request["code"], scope))}
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {"kinds": kinds, "message": str(error), "trace": traceback.format_exc()}


def main() -> None:
    """Answer requests until the other end closes its pipe."""
    # Answers have a descriptor of their own: nothing that is printed is mistaken for one.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    scope: dict[str, Any] = {"__name__": "peer"}
    run(sys.argv[1], scope)
    print(json.dumps({"value": os.getpid()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), scope)), file=answers, flush=True)


if __name__ == "__main__":
    main()
