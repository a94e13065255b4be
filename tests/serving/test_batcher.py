"""Questions that arrive while others are answered go together, and none is lost or answered with another's answer."""

import asyncio
import threading

import pytest

from seqrec.serving.batching import Batcher, Overloaded


def test_a_lone_question_is_answered_at_once_and_those_that_wait_go_together():
    sizes, go_on = [], threading.Event()

    def answer(questions):
        if not sizes:
            assert go_on.wait(10)
        sizes.append(len(questions))
        return [10 * question for question in questions]

    async def story():
        batcher = Batcher("test", answer, most=4)
        first = asyncio.create_task(batcher.ask(0))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.ask(n)) for n in range(1, 7)]
        await asyncio.sleep(0)
        assert batcher.n_waiting == 6
        go_on.set()
        answers = await asyncio.gather(first, *others)
        await batcher.close()
        return answers

    assert asyncio.run(story()) == [0, 10, 20, 30, 40, 50, 60]
    assert sizes == [1, 4, 2]


def test_a_question_that_fails_does_not_take_its_neighbours_along():
    def answer(questions):
        return [1 // question for question in questions]

    async def story():
        batcher = Batcher("test", answer)
        return await asyncio.gather(*(batcher.ask(n) for n in (1, 0, 1)), return_exceptions=True)

    one, failure, other = asyncio.run(story())
    assert (one, other) == (1, 1)
    assert isinstance(failure, ZeroDivisionError)


def test_who_gives_up_is_not_answered_and_holds_nobody_up():
    answered, go_on = [], threading.Event()

    def answer(questions):
        go_on.wait(10)
        answered.extend(questions)
        return questions

    async def story():
        batcher = Batcher("test", answer)
        first, impatient, last = (asyncio.create_task(batcher.ask(n)) for n in range(3))
        await asyncio.sleep(0.05)
        late = asyncio.create_task(batcher.ask(3))
        gives_up = asyncio.create_task(batcher.ask(4))
        await asyncio.sleep(0)
        impatient.cancel()
        gives_up.cancel()
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(first, last, late)

    assert asyncio.run(story()) == [0, 2, 3]
    assert 4 not in answered


def test_too_many_are_refused():
    go_on = threading.Event()

    async def story():
        batcher = Batcher("test", lambda questions: (go_on.wait(10), questions)[1], most=1, most_waiting=2)
        asked = [asyncio.create_task(batcher.ask(n)) for n in range(2)]
        await asyncio.sleep(0.05)
        asked.append(asyncio.create_task(batcher.ask(2)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 requests are waiting"):
            await batcher.ask(3)
        go_on.set()
        return await asyncio.gather(*asked)

    assert asyncio.run(story()) == [0, 1, 2]


def test_closing_answers_those_who_wait():
    async def story():
        batcher = Batcher("test", lambda questions: questions)
        asked = asyncio.create_task(batcher.ask(1))
        await asyncio.sleep(0)
        await batcher.close()
        with pytest.raises(Overloaded, match="stopping"):
            await batcher.ask(2)
        return asked.done() and asked.result()

    assert asyncio.run(story()) == 1
