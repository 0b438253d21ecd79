"""The micro-batcher, with a run that a test can hold and release."""

import asyncio
import threading

import pytest

from service.domain import NotReady, Overloaded
from service.vision.batching import MicroBatcher

pytestmark = pytest.mark.anyio

PATIENCE_S = 5.0


class HeldRun:
    """Doubles numbers; while held, a run waits. A negative number is an error of its own."""

    def __init__(self):
        self.batches = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Event()

    def __call__(self, items):
        self.batches.append(list(items))
        self.started.release()
        if not self.gate.wait(PATIENCE_S):
            raise TimeoutError("the test never released the run")
        return [ValueError(f"no {item}") if item < 0 else item * 2 for item in items]

    async def wait_started(self):
        assert await asyncio.to_thread(self.started.acquire, timeout=PATIENCE_S)


async def turns(count=5):
    """Let tasks that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def run():
    return HeldRun()


@pytest.fixture
async def batcher(run):
    batcher = MicroBatcher(run, max_batch=4, max_pending=6, deadline_s=PATIENCE_S)
    yield batcher
    run.gate.set()
    await batcher.close()


async def test_an_idle_batcher_starts_at_once(run, batcher):
    run.gate.set()
    assert await batcher.submit([7]) == [14]
    assert run.batches == [[7]]


async def test_callers_that_come_during_a_run_share_the_next(run, batcher):
    first = asyncio.create_task(batcher.submit([1]))
    await run.wait_started()
    others = [asyncio.create_task(batcher.submit([number])) for number in (2, 3, 4)]
    await turns()
    run.gate.set()
    assert await asyncio.gather(first, *others) == [[2], [4], [6], [8]]
    assert run.batches == [[1], [2, 3, 4]]


async def test_a_batch_never_exceeds_its_limit_and_order_is_kept(run, batcher):
    first = asyncio.create_task(batcher.submit([0]))
    await run.wait_started()
    many = asyncio.create_task(batcher.submit([5, 1, 4, 2, 6, 3]))
    await turns()
    run.gate.set()
    assert await many == [10, 2, 8, 4, 12, 6]
    await first
    assert run.batches == [[0], [5, 1, 4, 2], [6, 3]]


async def test_batch_sizes_are_reported():
    sizes = []
    batcher = MicroBatcher(list, max_batch=2, max_pending=9, deadline_s=PATIENCE_S, on_batch=sizes.append)
    assert await batcher.submit([1, 2, 3]) == [1, 2, 3]
    await batcher.close()
    assert sizes == [2, 1]


async def test_an_item_that_fails_fails_its_caller_alone(run, batcher):
    first = asyncio.create_task(batcher.submit([1]))
    await run.wait_started()
    good, bad = asyncio.create_task(batcher.submit([2])), asyncio.create_task(batcher.submit([-3]))
    await turns()
    run.gate.set()
    assert await good == [4]
    with pytest.raises(ValueError, match="no -3"):
        await bad
    await first
    assert run.batches == [[1], [2, -3]]


async def test_a_run_that_raises_fails_its_batch_and_the_next_one_works():
    def run(items):
        if 13 in items:
            raise RuntimeError("unlucky")
        return items

    batcher = MicroBatcher(run, max_batch=4, max_pending=9, deadline_s=PATIENCE_S)
    with pytest.raises(RuntimeError, match="unlucky"):
        await batcher.submit([12, 13])
    assert await batcher.submit([14]) == [14]
    await batcher.close()


async def test_a_run_that_loses_results_is_an_error_not_a_mix_up():
    batcher = MicroBatcher(lambda items: items[1:], max_batch=4, max_pending=9, deadline_s=PATIENCE_S)
    with pytest.raises(RuntimeError, match="3 items gave 2"):
        await batcher.submit([1, 2, 3])
    await batcher.close()


async def test_cancelled_callers_are_dropped_before_the_run(run, batcher):
    first = asyncio.create_task(batcher.submit([1]))
    await run.wait_started()
    gone, stays = asyncio.create_task(batcher.submit([2, 3])), asyncio.create_task(batcher.submit([4]))
    await turns()
    gone.cancel()
    await turns()
    run.gate.set()
    assert await stays == [8]
    await first
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert run.batches == [[1], [4]]


async def test_a_caller_cancelled_during_its_run_harms_nobody(run, batcher):
    gone = asyncio.create_task(batcher.submit([1]))
    await run.wait_started()
    gone.cancel()
    await turns()
    run.gate.set()
    assert await batcher.submit([2]) == [4]


async def test_whoever_waits_past_the_deadline_is_told_so(run):
    batcher = MicroBatcher(run, max_batch=4, max_pending=6, deadline_s=0.05)
    first = asyncio.create_task(batcher.submit([1]))
    await run.wait_started()
    late = asyncio.create_task(batcher.submit([2]))
    await asyncio.sleep(0.1)
    run.gate.set()
    with pytest.raises(Overloaded) as caught:
        await late
    assert caught.value.details == {"retry_after_s": 1}
    # The first was in time to begin, however long it took.
    assert await first == [2]
    assert run.batches == [[1]]
    await batcher.close()


async def test_a_full_queue_refuses_all_items_of_a_request_or_none(run, batcher):
    first = asyncio.create_task(batcher.submit([0]))
    await run.wait_started()
    waiting = asyncio.create_task(batcher.submit([1, 2, 3, 4, 5]))
    await turns()
    with pytest.raises(Overloaded):
        await batcher.submit([6, 7])
    last = asyncio.create_task(batcher.submit([8]))
    await turns()
    run.gate.set()
    assert (await waiting, await last) == ([2, 4, 6, 8, 10], [16])
    await first
    assert run.batches == [[0], [1, 2, 3, 4], [5, 8]]


async def test_several_workers_run_at_the_same_time(run):
    batcher = MicroBatcher(run, max_batch=1, max_pending=6, deadline_s=PATIENCE_S, workers=2)
    both = asyncio.gather(batcher.submit([1]), batcher.submit([2]))
    await run.wait_started()
    await run.wait_started()
    run.gate.set()
    assert await both == [[2], [4]]
    await batcher.close()


async def test_close_fails_whoever_waits_or_is_in_a_run_and_refuses_newcomers(run):
    batcher = MicroBatcher(run, max_batch=1, max_pending=6, deadline_s=PATIENCE_S)
    running = asyncio.create_task(batcher.submit([1]))
    await run.wait_started()
    waiting = asyncio.create_task(batcher.submit([2]))
    await turns()
    run.gate.set()
    closing = asyncio.create_task(batcher.close())
    with pytest.raises(NotReady):
        await waiting
    outcome = (await asyncio.gather(running, return_exceptions=True))[0]
    assert outcome == [2] or isinstance(outcome, NotReady)
    await closing
    with pytest.raises(NotReady):
        await batcher.submit([3])
    assert run.batches == [[1]]


async def test_close_lets_the_event_loop_go_on_while_a_run_ends(run):
    batcher = MicroBatcher(run, max_batch=1, max_pending=6, deadline_s=PATIENCE_S)
    running = asyncio.create_task(batcher.submit([1]))
    await run.wait_started()
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0.02)
    # Were the loop blocked, this line would be reached only after the run gave up.
    assert not closing.done()
    run.gate.set()
    await closing
    await asyncio.gather(running, return_exceptions=True)
