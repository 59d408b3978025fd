"""The cache of embeddings: processes that share it, fork or are killed."""

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch
from helpers.caches import is_complete, make_cache, make_row

from transformers_tart.embeddings.cache import EmbeddingCache


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run_all(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
        process.kill()


def write_and_read(folder: Path, start: int, barrier: Barrier) -> None:
    cache = make_cache(folder)
    barrier.wait(20)
    for i in range(start, 60, 2):
        cache.put([cache.key([i])], make_row(i))
    barrier.wait(20)
    os._exit(0 if is_complete(cache, 60) else 1)


@pytest.mark.slow
@needs_fork
def test__cache__two_processes_write_at_once__both_read_everything(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    writers = [context.Process(target=write_and_read, args=(tmp_path, start, barrier)) for start in (0, 1)]
    run_all(writers)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert is_complete(make_cache(tmp_path), 60)


def write_until_killed(cache: EmbeddingCache, start: int, written: Connection) -> None:
    for i in range(start, 10_000):
        cache.put([cache.key([i])], make_row(i, 500_000))
        written.send(i)


@pytest.mark.slow
@needs_fork
def test__cache__writer_killed__keeps_what_was_written_and_goes_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    cache, count = make_cache(tmp_path), 0
    for _ in range(4):
        receiver, sender = context.Pipe(duplex=False)
        writer = context.Process(target=write_until_killed, args=(cache, count, sender))
        writer.start()
        sender.close()
        assert receiver.recv() == count
        writer.kill()
        writer.join(10)
        count += 1
        while receiver.poll():
            try:
                count = receiver.recv() + 1
            except EOFError:
                break
        assert is_complete(cache, count, 500_000)
        cache.put([cache.key([count])], make_row(count, 500_000))
        count += 1


def use_in_child(cache: EmbeddingCache, key: bytes) -> None:
    found = cache.get([b"parent"])[0]
    cache.put([key], make_row(2))
    os._exit(0 if found is not None and torch.equal(found, make_row(1)[0]) else 1)


@pytest.mark.slow
@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test__cache__forked_while_a_thread_writes__works_in_parent_and_child(tmp_path: Path) -> None:
    cache, done = make_cache(tmp_path), threading.Event()
    cache.put([b"parent"], make_row(1))

    def write() -> None:
        while not done.is_set():
            cache.put([b"thread"], make_row(3))

    thread = threading.Thread(target=write)
    thread.start()
    context = multiprocessing.get_context("fork")
    keys = [bytes([i]) for i in range(5)]
    children = [context.Process(target=use_in_child, args=(cache, key)) for key in keys]
    run_all(children)
    done.set()
    thread.join()
    assert [child.exitcode for child in children] == [0] * 5
    assert all(torch.equal(row, make_row(2)[0]) for row in cache.get(keys))


def create(folder: Path, barrier: Barrier) -> None:
    barrier.wait(20)
    make_cache(folder)
    os._exit(0)


@pytest.mark.slow
@needs_fork
def test__cache__created_by_eight_processes_at_once__no_error(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(5):
        barrier = context.Barrier(8)
        creators = [context.Process(target=create, args=(tmp_path / str(turn), barrier)) for _ in range(8)]
        run_all(creators)
        assert [creator.exitcode for creator in creators] == [0] * 8
