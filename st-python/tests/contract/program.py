"""A program as it is written for pyshmem: a camera, a filter in another process, a live view."""
# mypy: disable-error-code="import-untyped, import-not-found"

import asyncio
import multiprocessing
import sys

import numpy as np
import pyshmem

SHAPE, FRAMES = (4, 6), 5


def smooth(camera_name: str, result_name: str) -> None:
    """Answer each frame with its running mean, in a process of its own."""
    camera = pyshmem.open(camera_name, readonly=True)
    result = pyshmem.open(result_name)
    mean = np.zeros(SHAPE, np.float32)
    for i in range(FRAMES):
        frame = camera.read_publication() if camera.count > i else None
        if frame is None or frame.count <= i:
            frame = camera.read_after_publication(i, timeout=30.0)
        mean += (frame.payload - mean) / (i + 1)
        with result.locked(timeout=5.0):
            result.write_locked(mean, frame_id=frame.frame_id)
    camera.close()
    result.close()


async def watch(name: str) -> float:
    """Wait for the next result without stopping the loop."""
    with pyshmem.open(name) as view:
        return float((await view.read_new_async(timeout=30.0)).sum())


async def run_camera(camera: pyshmem.SharedMemory, result: pyshmem.SharedMemory) -> None:
    """Publish frames one by one and print what comes back."""
    for i in range(FRAMES):
        watching = asyncio.ensure_future(watch(result.name))
        await asyncio.sleep(0)
        with camera.write_view(frame_id=100 + i) as view:
            view += i
        print(f"mean {await watching:.2f} of frame {result.frame_id}, {result.count} so far")


def main(name: str) -> None:
    """Set everything up, run it, and clean up."""
    with (
        pyshmem.stream(f"{name}-camera", shape=SHAPE) as camera,
        pyshmem.create(f"{name}-result", shape=SHAPE, notify=True, auto_unlink=True) as result,
    ):
        arguments = (camera.name, result.name)
        worker = multiprocessing.get_context("spawn").Process(target=smooth, args=arguments)
        worker.start()
        asyncio.run(run_camera(camera, result))
        worker.join(30.0)
        with pyshmem.locked_many([result, camera], timeout=5.0) as held:
            print([stream.name.rsplit("-", 1)[1] for stream in held], worker.exitcode)
        try:
            with camera.write_view():
                raise KeyError("lens cap")
        except KeyError:
            print("aborted", camera.write_sequence, camera.count)
        try:
            camera.read()
        except pyshmem.InconsistentStreamError as error:
            print("inconsistent", isinstance(error, RuntimeError))
        camera.clear()
        print(camera.read().any(), camera.missed_writes, pyshmem.stat(camera.name)["count"])
    print([n for n in pyshmem.list_streams() if n.startswith(name)])


if __name__ == "__main__":
    main(sys.argv[1])
