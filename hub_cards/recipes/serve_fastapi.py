"""Serve a task over HTTP; concurrent requests are batched together.

TASK=me/tart-sms-spam uvicorn serve_fastapi:app --timeout-graceful-shutdown 30
curl localhost:8000/classify --json '["free entry, WIN now", "see you at eight"]'
"""

import asyncio
import os
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from pydantic import Field, TypeAdapter, ValidationError
from transformers import pipeline

import transformers_tart  # noqa: F401 (registers the pipeline)


MOST_BYTES, MOST_TEXTS, MOST_CHARACTERS, MOST_WAITING, BATCH_SIZE = 2**20, 64, 10_000, 512, 64
TEXTS = TypeAdapter(Annotated[list[Annotated[str, Field(max_length=MOST_CHARACTERS)]], Field(max_length=MOST_TEXTS)])


async def answer_all(classify: Any, queue: asyncio.Queue) -> None:
    while True:
        jobs = [await queue.get()]
        while not queue.empty() and sum(len(texts) for texts, _ in jobs) < BATCH_SIZE:
            jobs.append(queue.get_nowait())
        try:
            found = iter(await asyncio.to_thread(classify, [text for texts, _ in jobs for text in texts]))
            for texts, future in jobs:
                own = [next(found) for _ in texts]
                future.cancelled() or future.set_result(own)
        except Exception as err:  # that of these requests; the server goes on
            _ = [future.set_exception(err) for _, future in jobs if not future.done()]
        _ = [queue.task_done() for _ in jobs]


@asynccontextmanager
async def run(app: FastAPI) -> Any:
    classify, queue = pipeline("tart-classification", model=os.environ["TASK"]), asyncio.Queue(MOST_WAITING)
    app.state.queue, app.state.worker = queue, asyncio.create_task(answer_all(classify, queue))
    yield
    await queue.join()  # what was accepted is answered before the server stops


app = FastAPI(lifespan=run)


@app.post("/classify")
async def answer(request: Request) -> list[dict]:
    body, future = b"", asyncio.get_running_loop().create_future()
    async for chunk in request.stream():
        if len(body := body + chunk) > MOST_BYTES:
            raise HTTPException(413, f"Give at most {MOST_BYTES} bytes.")
    try:
        request.app.state.queue.put_nowait((TEXTS.validate_json(body), future))
    except (ValidationError, asyncio.QueueFull) as err:
        raise HTTPException(503 if isinstance(err, asyncio.QueueFull) else 422, str(err) or "Too many wait.") from None
    return await future
