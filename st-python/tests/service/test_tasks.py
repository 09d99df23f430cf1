"""Tasks: their life, what is told of them, cancelling, progress."""

from __future__ import annotations

import re
import sys
import threading
from typing import Any

import pytest

import shared_tensor
from shared_tensor import TaskInfo, TaskStatus, errors
from shared_tensor.async_task import TaskManager

from .conftest import Serve

ENDPOINTS = """
release = threading.Event()
began = threading.Event()

@share(execution="task", cache=False, plain=True)
def double(number): return 2 * number

@share(execution="task", cache=False)
def fail(): raise KeyError("why")

@share(execution="task", cache=False)
def stuck():
    began.set()
    release.wait(60)

@share(execution="task", cache=False, plain=True)
def patient():
    began.set()
    while not shared_tensor.cancelled():
        release.wait(0.005)
    return "stopped"

@share(execution="task", cache=False, plain=True)
def obedient():
    began.set()
    release.wait(60)
    while not shared_tensor.cancelled(): pass
    raise InterruptedError("enough")

@share(execution="task", cache=False, plain=True)
def deaf():
    began.set()
    release.wait(60)
    raise InterruptedError("enough")

@share(execution="task", cache=False, plain=True)
def telling(steps):
    for step in range(steps):
        shared_tensor.progress(step + 1, steps, f"step {step}")
    return steps

@share(cache=False, plain=True)
def direct(number): return number
"""
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FIELDS = {
    "task_id", "endpoint", "status", "created_at", "started_at", "completed_at", "error_type",
    "error_message", "metadata",
}  # fmt: skip


def test_a_life(serve: Serve) -> None:
    """Submitted, run, completed; the result may be fetched again and again."""
    client = serve(ENDPOINTS).client()
    task = client.submit("double", 4)
    assert UUID.fullmatch(task)
    told = client.wait_task(task)
    assert set(told) == FIELDS
    assert (told["task_id"], told["endpoint"], told["status"]) == (task, "double", "completed")
    assert told["created_at"] <= told["started_at"] <= told["completed_at"]
    assert told["metadata"] == {"object_id": None}
    assert client.get_task_status(task) == told
    assert (client.get_task_result(task), client.get_task_result(task)) == (8, 8)
    assert client.list_tasks() == {task: told}
    assert client.list_tasks("completed") == {task: told}
    assert client.list_tasks("failed") == {}
    assert client.cancel_task(task) is False


def test_calls_wait_for_tasks(serve: Serve) -> None:
    """A call of a task endpoint gives its result; a direct endpoint may be submitted."""
    client = serve(ENDPOINTS).client()
    assert client.call("double", 3) == 6
    task = client.submit("direct", 3)
    client.wait_task(task)
    assert client.get_task_result(task) == 3


def test_failure(serve: Serve) -> None:
    """A failed task is code 5, with the type of what was raised, wherever it shows."""
    served = serve(ENDPOINTS)
    client = served.client()
    task = client.submit("fail")
    for ask in (
        lambda: client.wait_task(task),
        lambda: client.get_task_result(task),
        lambda: client.call("fail"),
    ):
        with pytest.raises(errors.SharedTensorRemoteError) as caught:
            ask()
        assert str(caught.value) == "Remote error [5]: 'why'"
        assert (caught.value.code, caught.value.error_type) == (5, "KeyError")
        assert "in fail" in str(caught.value.__cause__)
    told = client.get_task_status(task)
    assert (told["status"], told["error_type"], told["error_message"]) == (
        "failed", "KeyError", "'why'",
    )  # fmt: skip
    with pytest.raises(errors.SharedTensorTaskError, match="'why'") as failed:
        served.waiting().wait(task)
    assert failed.value.error_type == "KeyError"


def test_unknown_tasks(serve: Serve) -> None:
    """A task that there is not is code 5."""
    served = serve(ENDPOINTS)
    client = served.client()
    for name in ("nonsense", "00000000-0000-4000-8000-000000000000"):
        for ask in (
            client.get_task_status, client.get_task_result, client.wait_task, client.cancel_task,
        ):  # fmt: skip
            with pytest.raises(errors.SharedTensorRemoteError, match="was not found") as caught:
                ask(name)
            assert caught.value.code == 5
    with pytest.raises(errors.SharedTensorTaskError, match="was not found"):
        served.waiting().wait(name)
    with pytest.raises(errors.SharedTensorRemoteError, match="not a valid TaskStatus") as wrong:
        client.list_tasks("done")
    assert (wrong.value.code, wrong.value.error_type) == (7, "ValueError")


def test_a_task_that_is_not_over(serve: Serve) -> None:
    """Waiting has an end of its own; a result that is not there is code 5."""
    served = serve(ENDPOINTS)
    client = served.client()
    task = client.submit("stuck")
    served.run("began.wait(60)")
    assert client.wait_task(task, timeout=0.05)["status"] == "running"
    with pytest.raises(errors.SharedTensorRemoteError, match="not complete") as caught:
        client.get_task_result(task)
    assert caught.value.code == 5
    waiting = served.waiting()
    with pytest.raises(
        errors.SharedTensorTaskError, match=r"did not complete within 0\.05"
    ) as late:
        waiting.wait_for_task(task, timeout=0.05)
    assert isinstance(late.value, TimeoutError)
    assert client.cancel_task(task) is False
    served.run("release.set()")
    assert waiting.wait(task) is None
    assert waiting.status(task).status is TaskStatus.COMPLETED


def test_cancelling_before_it_begins(serve: Serve) -> None:
    """A pending task is given up; whoever waits for it is told so."""
    served = serve(ENDPOINTS, max_workers=1)
    client = served.client()
    first = client.submit("stuck")
    served.run("began.wait(60)")
    second = client.submit("double", 1)
    assert client.get_task_status(second)["status"] == "pending"
    assert client.cancel_task(second) is True
    assert client.get_task_status(second)["status"] == "cancelled"
    with pytest.raises(errors.SharedTensorRemoteError, match="cancelled") as caught:
        client.wait_task(second)
    assert caught.value.code == 5
    with pytest.raises(errors.SharedTensorTaskError, match="cancelled"):
        served.waiting().wait(second)
    assert set(client.list_tasks("cancelled")) == {second}
    served.run("release.set()")
    client.wait_task(first)


def test_asking_a_task_to_stop(serve: Serve) -> None:
    """A running task can be asked, and may answer."""
    served = serve(ENDPOINTS)
    client = served.client()
    task = client.submit("patient")
    served.run("began.wait(60)")
    assert client.cancel_task(task) is False
    assert client.cancel_task(task, cooperative=True) is True
    assert client.wait_task(task)["status"] == "completed"
    assert client.get_task_result(task) == "stopped"


@pytest.mark.parametrize(("endpoint", "status"), [("obedient", "cancelled"), ("deaf", "failed")])
def test_what_a_task_raises_when_told_to_stop(serve: Serve, endpoint: str, status: str) -> None:
    """It is cancelled if it was told, whoever waits by then, and has failed if it never looked."""
    served = serve(ENDPOINTS)
    client, late = served.client(), served.waiting()
    task = client.submit(endpoint)
    served.run("began.wait(60)")
    assert client.cancel_task(task, cooperative=True) is True
    told: list[TaskInfo] = []

    def wait() -> None:
        with pytest.raises(errors.SharedTensorTaskError, match=r"enough|cancelled"):
            late.wait_for_task(task, callback=told.append)

    waiting = threading.Thread(target=wait)
    waiting.start()
    served.run("release.set()")
    waiting.join()
    assert client.get_task_status(task)["status"] == status
    assert client.get_task_status(task)["error_type"] == "InterruptedError"
    assert told[-1].status is TaskStatus(status)


def test_progress(serve: Serve) -> None:
    """Whoever waits sees how far it is, and the task remembers."""
    served = serve(ENDPOINTS)
    told: list[Any] = []
    client = served.client(progress=lambda *progress: told.append(progress))
    assert client.call("telling", 3) == 3
    assert told[-1] == (3, 3, "step 2")
    assert [step for step, _, _ in told] == sorted(step for step, _, _ in told)
    task = client.submit("telling", 2)
    client.wait_task(task)
    status = client.get_task_status(task)
    assert status["metadata"]["progress"] == {"done": 2, "total": 2, "note": "step 1"}


def test_a_bar(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """With progress=True it is drawn, for calls and for tasks, once there is something to show."""
    pytest.importorskip("tqdm", reason="no tqdm here")
    client = serve(ENDPOINTS).client(progress=True)
    assert client.call("telling", 3) == 3
    drawn = capsys.readouterr().err
    assert "telling:" in drawn
    assert "3/3" in drawn
    assert "step 2" in drawn
    task = client.submit("telling", 2)
    assert client.wait_task(task)["status"] == "completed"
    drawn = capsys.readouterr().err
    assert drawn == "" or (task in drawn and "2/2" in drawn)
    assert client.call("direct", 1) == 1
    assert capsys.readouterr().err == ""


def test_no_bar_without_tqdm(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is not installed nothing is drawn, and nothing fails."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert serve(ENDPOINTS).client(progress=True).call("telling", 3) == 3
    assert capsys.readouterr().err == ""


def test_outside_of_endpoints() -> None:
    """The functions of endpoints may be called as they are."""
    shared_tensor.progress(1, 2, "nobody hears")
    assert shared_tensor.cancelled() is False


def test_callbacks(serve: Serve) -> None:
    """Those who wait with a callback get the end at least."""
    waiting = serve(ENDPOINTS).waiting()
    told: list[TaskInfo] = []
    task = waiting.submit("telling", 3)
    assert waiting.wait_for_task(task, callback=told.append) == 3
    assert told[-1].status is TaskStatus.COMPLETED
    failing = waiting.submit("fail")
    with pytest.raises(errors.SharedTensorTaskError):
        waiting.wait_for_task(failing, callback=told.append)
    assert told[-1].status is TaskStatus.FAILED


def test_the_client_for_tasks(serve: Serve) -> None:
    """It does what the other one does."""
    served = serve(ENDPOINTS)
    with served.waiting() as waiting:
        task = waiting.submit("double", 1)
        assert (waiting.wait(task), waiting.result(task)) == (2, 2)
        assert waiting.get_task_result(task) == 2
        assert isinstance(waiting.get_task_status(task), TaskInfo)
        assert set(waiting.list_tasks()) == {task}
        assert waiting.list_tasks()[task].status is TaskStatus.COMPLETED
        assert waiting.cancel(task) is waiting.cancel_task(task) is False
        assert waiting.ping() is True
        assert waiting.get_server_info()["server_id"] == served.run("server.server_id")
        assert set(waiting.list_endpoints()) >= {"double", "fail"}
        assert waiting.release("0" * 32) is False
        assert waiting.release_many(["0" * 32]) == {"0" * 32: False}
        assert waiting.get_object_info("0" * 32) is None
        assert waiting.invalidate_call_cache("double", 1) is False
        assert waiting.invalidate_endpoint_cache("double") == 0
        assert waiting.poll_interval == 1.0


def test_many_wait_for_one(serve: Serve) -> None:
    """Waiting takes no worker."""
    served = serve(ENDPOINTS, max_workers=1)
    client = served.client()
    task = client.submit("stuck")
    served.run("began.wait(60)")
    ends: list[str] = []
    threads = [
        threading.Thread(target=lambda: ends.append(client.wait_task(task)["status"]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    assert client.ping() is True
    served.run("release.set()")
    for thread in threads:
        thread.join()
    assert ends == ["completed"] * 8


def test_a_task_that_calls_a_task(serve: Serve) -> None:
    """With one worker, too."""
    served = serve(
        """
        @share(execution="task", cache=False, plain=True)
        def inner(): return 1

        @share(execution="task", cache=False, plain=True)
        def outer():
            client = shared_tensor.SharedTensorClient(base_path, device="cpu", timeout=30)
            return 1 + client.call("inner")
        """,
        max_workers=1,
    )
    assert served.client().call("outer") == 2


def test_info_as_a_dict() -> None:
    """There and back; a field that there is not is an error."""
    info = TaskInfo("t", "e", TaskStatus.FAILED, 1.0, error_type="KeyError")
    assert info.to_dict() == {
        "task_id": "t", "endpoint": "e", "status": "failed", "created_at": 1.0, "started_at": None,
        "completed_at": None, "error_type": "KeyError", "error_message": None, "metadata": {},
    }  # fmt: skip
    assert TaskInfo.from_dict(info.to_dict()) == info
    assert type(info.to_dict()["status"]) is str
    with pytest.raises(TypeError):
        TaskInfo.from_dict({**info.to_dict(), "more": 1})
    assert [status.value for status in TaskStatus] == [
        "pending", "running", "completed", "failed", "cancelled",
    ]  # fmt: skip


def test_a_manager_of_ones_own() -> None:
    """The class that programs may use by themselves."""
    manager = TaskManager(max_workers=1, max_tasks=3)
    release = threading.Event()
    done = manager.submit("e", lambda: None, (), {})
    assert manager.wait_result_payload(done.task_id, 60) == {
        "encoding": None, "payload_bytes": None, "object_id": None,
    }  # fmt: skip
    stuck = manager.submit("e", release.wait, (60,), {}, lambda value: {})
    waiting = manager.submit("e", int, (), {}, lambda value: {"object_id": "o"})
    with pytest.raises(errors.SharedTensorTaskError, match="is not complete"):
        manager.result(stuck.task_id)
    with pytest.raises(errors.SharedTensorTaskError, match="did not complete within"):
        manager.wait_result_local(stuck.task_id, 0.01)
    # The oldest that is over makes room, and then nobody does.
    failing = manager.submit("e", int, ("x",), {})
    with pytest.raises(errors.SharedTensorTaskError, match="was not found"):
        manager.get(done.task_id)
    with pytest.raises(errors.SharedTensorTaskError, match="capacity exceeded"):
        manager.submit("e", int, (), {})
    assert manager.cancel(waiting.task_id) is True
    with pytest.raises(errors.SharedTensorTaskError, match="was cancelled"):
        manager.wait_result_local(waiting.task_id)
    assert manager.cancel(stuck.task_id) is False
    release.set()
    with pytest.raises(errors.SharedTensorTaskError, match="invalid literal"):
        manager.wait_result_local(failing.task_id, 60)
    assert manager.get(failing.task_id).error_type == "ValueError"
    assert set(manager.list(TaskStatus.FAILED)) == {failing.task_id}
    manager.shutdown()
    with pytest.raises(errors.SharedTensorTaskError, match="shut down"):
        manager.submit("e", int, (), {})
