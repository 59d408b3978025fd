"""The recipes of `hub_cards/recipes` run, each where its library is installed."""

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from helpers.builders import make_examples, make_texts, save_backbone
from helpers.launching import LAUNCH
from helpers.scripts import load_script
from transformers import pipeline

from transformers_tart import TartClassificationPipeline


pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "hub_cards" / "recipes"
MOST_LINES = 60
TEXTS = make_texts(40, seed=3)
CLIENTS, LEAST, SECONDS = 100, 200, float(os.environ.get("SERVING_SECONDS", "0"))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a fitted task on a tiny backbone."""
    folder = tmp_path_factory.mktemp("task")
    classify = pipeline("tart-classification", model=save_backbone(folder / "backbone"), examples=make_examples(12))
    classify.save_pretrained(folder / "task")
    return str(folder / "task")


@pytest.fixture(scope="module")
def classify(task: str) -> TartClassificationPipeline:
    return pipeline("tart-classification", model=task)


def write_table(path: Path, texts: list[str] = TEXTS) -> str:
    path.write_text("\n".join(["text", *texts]) + "\n")
    return str(path)


def assert_same(labeled: Any, classify: TartClassificationPipeline) -> None:
    """Compare a table of pandas that holds each text once, in any order, with the answers of the pipeline."""
    assert sorted(labeled["text"]) == sorted(TEXTS)
    expected = dict(zip(TEXTS, classify(TEXTS), strict=True))
    for text, label, score in zip(labeled["text"], labeled["label"], labeled["score"], strict=True):
        assert label == expected[text]["label"]
        assert score == pytest.approx(expected[text]["score"], abs=1e-4)


def run_recipe(name: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(RECIPES / name), *arguments], check=True, timeout=300)


def test__recipes__lines__under_sixty() -> None:
    long = [path.name for path in RECIPES.glob("*.py") if len(path.read_text().splitlines()) >= MOST_LINES]
    assert long == []


@contextmanager
def served(task: str, log: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Yield the address of a server of the task, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "serve_fastapi:app", "--port", str(port), "--backlog", "512"]
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=RECIPES, env={**os.environ, "TASK": task}, stderr=file, stdout=file)
    try:
        while "startup complete" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/classify", process
    finally:
        process.terminate()
        process.wait(60)


async def ask_for(seconds: float, address: str, process: subprocess.Popen, expected: dict[str, Any]) -> int:
    """Ask with all clients at once, then stop the server while it holds requests; return the number of right answers.

    Each client ends with a request of the most texts. The server is stopped once it has read them all.
    """
    import httpx

    end, count, last_sent, stopping = time.monotonic() + seconds, 0, 0, False

    async def note_last(event: str, info: dict) -> None:
        nonlocal last_sent
        last_sent += event == "http11.send_request_body.complete"

    async def ask(client: httpx.AsyncClient, seed: int) -> None:
        nonlocal count
        draws, last = random.Random(seed), False
        while not last:
            last = stopping
            texts = draws.choices(TEXTS, k=64 if last else draws.randint(1, 8))
            response = await client.post(address, json=texts, extensions={"trace": note_last} if last else None)
            assert response.status_code == 200, response.text
            assert [each["label"] for each in response.json()] == [expected[text]["label"] for text in texts]
            scores = [expected[text]["score"] for text in texts]
            assert [each["score"] for each in response.json()] == pytest.approx(scores, abs=1e-4)
            count += 1

    async def stop(client: httpx.AsyncClient) -> None:
        nonlocal stopping
        while time.monotonic() < end or count < LEAST:
            await asyncio.sleep(0.01)
        stopping = True
        while last_sent < CLIENTS:
            await asyncio.sleep(0.01)
        await client.get(address.replace("classify", "openapi.json"))  # read after the last requests
        assert not all(each.done() for each in asking)
        process.terminate()

    limits = httpx.Limits(max_connections=CLIENTS + 1, keepalive_expiry=1)  # shorter than that of the server
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:
        asking = [asyncio.create_task(ask(client, seed)) for seed in range(CLIENTS)]
        await asyncio.gather(stop(client), *asking)
    return count


def test__serve_fastapi__many_clients_and_a_stop__no_answer_lost_or_wrong(
    task: str, classify: TartClassificationPipeline, tmp_path: Path
) -> None:
    pytest.importorskip("fastapi", reason="needs fastapi, uvicorn and httpx")
    pytest.importorskip("uvicorn", reason="needs fastapi, uvicorn and httpx")
    pytest.importorskip("httpx", reason="needs fastapi, uvicorn and httpx")
    expected = dict(zip(TEXTS, classify(TEXTS), strict=True))
    with served(task, tmp_path / "log") as (address, process):
        count = asyncio.run(ask_for(SECONDS, address, process, expected))
        assert process.wait(60) in (0, -15)
    assert (tmp_path / "log").read_text().count('"POST /classify HTTP/1.1" 200') == count  # each arrived
    print(f"{count} requests of {CLIENTS} clients in {SECONDS} s")


def test__serve_fastapi__too_much__refused(task: str, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="needs fastapi, uvicorn and httpx")
    httpx = pytest.importorskip("httpx", reason="needs fastapi, uvicorn and httpx")
    with served(task, tmp_path / "log") as (address, _), httpx.Client(trust_env=False, timeout=60) as client:
        assert client.post(address, json=["w1"] * 65).status_code == 422
        assert client.post(address, json=["w" * 10_001]).status_code == 422
        assert client.post(address, json={"texts": 1}).status_code == 422
        assert client.post(address, content=b" " * (2**20 + 1)).status_code == 413
        assert client.post(address, json=[]).json() == []
        assert len(client.post(address, json=["w1", "w2"]).json()) == 2


def test__handler__requests_of_endpoints__lists(task: str, classify: TartClassificationPipeline) -> None:
    handler = load_script("recipes/handler.py").EndpointHandler(task)
    assert handler({"inputs": TEXTS[0]}) == [classify(TEXTS[0])]
    assert handler({"inputs": TEXTS, "parameters": {"top_k": 2}}) == classify(TEXTS, top_k=2)
    for wrong in ({}, {"inputs": []}, {"inputs": "a", "parameters": {"examples": []}}, {"inputs": ["a"] * 257}):
        with pytest.raises(ValueError, match="[Gg]ive|may have"):
            handler(wrong)


def test__batch_ray__two_workers__answers_of_the_pipeline(
    task: str, classify: TartClassificationPipeline, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray", reason="needs ray[data]")
    pandas = pytest.importorskip("pandas")
    ray.init(num_cpus=3, include_dashboard=False, object_store_memory=2**28)
    try:
        recipe = load_script("recipes/batch_ray.py")
        recipe.run(classify, write_table(tmp_path / "in.csv"), str(tmp_path / "out"), workers=2)
    finally:
        ray.shutdown()
    assert_same(pandas.read_parquet(tmp_path / "out"), classify)


def test__batch_spark__local__answers_of_the_pipeline(
    task: str, classify: TartClassificationPipeline, tmp_path: Path
) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="needs pyspark and Java")
    session = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        rows = session.createDataFrame([(text, i) for i, text in enumerate(TEXTS)], "text string, number int")
        labeled = load_script("recipes/batch_spark.py").classify_table(session, rows.repartition(2), classify)
        found = labeled.toPandas()
    finally:
        session.stop()
    assert_same(found, classify)


def test__batch_accelerate__two_processes__answers_of_the_pipeline(
    task: str, classify: TartClassificationPipeline, tmp_path: Path
) -> None:
    pandas = pytest.importorskip("pandas")
    launch = [*LAUNCH, "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    recipe = [str(RECIPES / "batch_accelerate.py"), "--task", task, "--input", write_table(tmp_path / "in.csv")]
    subprocess.run([*launch, *recipe, "--output", str(tmp_path / "out")], check=True, timeout=300)
    assert len(list((tmp_path / "out").glob("*-of-00002.parquet"))) == 2
    assert_same(pandas.read_parquet(tmp_path / "out"), classify)


def test__batch_datasets__four_processes__answers_of_the_pipeline_and_then_the_cache(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, path = load_script("recipes/batch_datasets.py"), write_table(tmp_path / "in.csv")

    def label(processes: int) -> Any:
        rows = load_dataset("csv", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
        return recipe.run(rows, pipeline("tart-classification", model=task, device="cpu"), processes)

    first = label(4)
    assert_same(first, pipeline("tart-classification", model=task))
    # a task that is loaded anew is the same function: nothing is classified
    monkeypatch.setattr(TartClassificationPipeline, "__call__", lambda *args, **kwargs: pytest.fail("no cache"))
    assert [each["filename"] for each in label(4).cache_files] == [each["filename"] for each in first.cache_files]
