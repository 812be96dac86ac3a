#!/usr/bin/env python3
"""A reward role in Python: plugs into a running topology and may be stopped and replaced while the run goes on.

    pip install pyzmq msgpack
    troupe run configs/grpo-smollm2-remote-reward.json --run-folder runs/remote &
    python examples/reward_server.py runs/remote

The node "reward" of that topology is "external": the run waits for whoever listens at its endpoint (RUN/run.json).
docs/protocol.md describes the wire.
"""
import json
import os
import re
import sys
import time

import msgpack
import zmq

NODE = "reward/0"


def score(prompt: str, answer: str, response: str) -> float:
    """1 for an answer whose last number is the expected one. Put your own model here."""
    numbers = re.findall(r"-?\d+", response)
    return float(bool(numbers) and numbers[-1] == answer)


def serve(endpoint: str) -> None:
    if endpoint.startswith("ipc://") and os.path.exists(endpoint[6:]):
        os.unlink(endpoint[6:])  # left by the one that is replaced
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(endpoint)
    answered = {}  # (asker, id) -> frames: a request that is sent again gets the same answer
    while True:
        peer, head, body = socket.recv_multipart()[:3]
        envelope, message = msgpack.unpackb(head), msgpack.unpackb(body)
        key = (envelope["src"], envelope["id"])
        if key not in answered:
            if envelope["type"] == "score":
                scores = [score(message["prompt"], message["answer"], r) for r in message["responses"]]
                kind, name, reply = "reply", "scores", {"scores": scores, "parts": {"numeric": scores}}
            else:
                kind, name = "failure", "failure"
                reply = {"code": "unknown_type", "node": NODE, "what": envelope["type"], "message": "only score"}
            out = dict(envelope, kind=kind, type=name, id=0, corr=envelope["id"], src=NODE, inc=1)
            answered[key] = [msgpack.packb(out), msgpack.packb(reply)]
            while len(answered) > 1000:
                answered.pop(next(iter(answered)))
        socket.send_multipart([peer] + answered[key])


if __name__ == "__main__":
    run_file = os.path.join(sys.argv[1], "run.json")
    while not os.path.exists(run_file):
        time.sleep(0.1)
    with open(run_file) as f:
        serve(json.load(f)["endpoints"][NODE])
