"""Tool calls as providers stream them: in pieces, side by side, late, and with the wrong finish reason.

The calls are the same in every answer (``CALLS``), for any tools of the request.
"""

from __future__ import annotations

from typing import Any

from headgate.testing.faults.scene import Scene, fault
from headgate.testing.provider import shapes

CALLS = (
    ("call_0", "get_weather", '{"city":"Zürich","unit":"celsius"}'),
    ("call_1", "get_time", '{"zone":"Europe/Zurich"}'),
    ("call_2", "search", '{"query":"stream \\"resumption\\"","limit":3}'),
)


def _opening(index: int, arguments: str = "") -> dict[str, Any]:
    id, name, _ = CALLS[index]
    return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _more(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}}


def _pieces(arguments: str, size: int = 5) -> list[str]:
    return [arguments[start : start + size] for start in range(0, len(arguments), size)]


def _begin(scene: Scene) -> None:
    scene.open()
    scene.send(scene.shape.delta({"role": "assistant", "content": None}))


def _finish(scene: Scene, reason: str, count: int) -> None:
    scene.reply.seen.tokens = count
    scene.send(scene.shape.ending(reason, scene.chat.prompt_tokens, count))
    scene.reply.end()


def _whole(scene: Scene, count: int) -> None:
    """The first ``count`` calls as one JSON document."""
    calls = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in CALLS[:count]
    ]
    message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}
    document = {
        "id": scene.shape.id,
        "object": "chat.completion",
        "created": scene.shape.created,
        "model": scene.shape.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}],
        "usage": shapes.usage(scene.chat.prompt_tokens, count),
    }
    scene.reply.whole(200, shapes.dumps(document))


async def _one_call(scene: Scene, reason: str) -> None:
    _begin(scene)
    scene.send(scene.shape.delta({"tool_calls": [_opening(0)]}))
    for piece in _pieces(CALLS[0][2]):
        scene.send(scene.shape.delta({"tool_calls": [_more(0, piece)]}))
        await scene.sleep(0)
    _finish(scene, reason, 1)


@fault("tool-calls", "one tool call, its arguments in pieces", survivable=True)
async def tool_calls(scene: Scene) -> None:
    if not scene.streamed:
        return _whole(scene, 1)
    return await _one_call(scene, "tool_calls")


@fault("tool-calls-stop", "one tool call, but finish_reason stop", survivable=True)
async def tool_calls_stop(scene: Scene) -> None:
    if not scene.streamed:
        return _whole(scene, 1)
    return await _one_call(scene, "stop")


@fault("parallel-tools", "three tool calls whose arguments come interleaved", survivable=True)
async def parallel_tools(scene: Scene) -> None:
    if not scene.streamed:
        return _whole(scene, 3)
    _begin(scene)
    for index in range(3):
        scene.send(scene.shape.delta({"tool_calls": [_opening(index)]}))
    pieces = [_pieces(arguments) for _, _, arguments in CALLS]
    for turn in range(max(map(len, pieces))):
        for index, mine in enumerate(pieces):
            if turn < len(mine):
                scene.send(scene.shape.delta({"tool_calls": [_more(index, mine[turn])]}))
        await scene.sleep(0)
    return _finish(scene, "tool_calls", 3)


@fault("parallel-tools-at-once", "three whole tool calls in one delta, without an index", survivable=True)
async def parallel_at_once(scene: Scene) -> None:
    if not scene.streamed:
        return _whole(scene, 3)
    _begin(scene)
    calls = [_opening(index, CALLS[index][2]) for index in range(3)]
    for call in calls:
        del call["index"]
    scene.send(scene.shape.delta({"tool_calls": calls}))
    return _finish(scene, "tool_calls", 3)


@fault("args-in-done", "a tool call whose arguments come only with the finish reason", survivable=True)
async def args_in_done(scene: Scene) -> None:
    if not scene.streamed:
        return _whole(scene, 1)
    _begin(scene)
    scene.send(scene.shape.delta({"tool_calls": [_opening(0)]}))
    await scene.sleep(0)
    scene.send(scene.shape.delta({"tool_calls": [_more(0, CALLS[0][2])]}, "tool_calls"))
    extra = scene.shape.usage(scene.chat.prompt_tokens, 1) if scene.chat.include_usage else b""
    scene.reply.seen.tokens = 1
    scene.send(extra, shapes.DONE)
    return scene.reply.end()


@fault("tool-cut", "the connection ends in the middle of a tool call's arguments")
async def tool_cut(scene: Scene) -> None:
    if not scene.streamed:
        return _whole(scene, 1)
    _begin(scene)
    pieces = _pieces(CALLS[0][2])
    scene.send(scene.shape.delta({"tool_calls": [_opening(0)]}))
    for piece in pieces[: len(pieces) // 2]:
        scene.send(scene.shape.delta({"tool_calls": [_more(0, piece)]}))
    return scene.reply.close()
