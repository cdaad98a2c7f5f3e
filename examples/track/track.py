"""Track asks for permission to send and to read, sends a music track, and prints what the friend answers: a partner's backend in Python.

    LETTERLOCK_AGENT=http://127.0.0.1:9090 LETTERLOCK_SECRET=$(cat home/secret) python3 track.py
"""
import json
import os
import sys
import time
import urllib.error
import urllib.request


def call(method, path, body=None):
    """Makes a call of the agent that runs beside this backend."""
    request = urllib.request.Request(
        os.environ["LETTERLOCK_AGENT"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + os.environ["LETTERLOCK_SECRET"], "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refusal:
        sys.exit(json.load(refusal)["detail"])


asked = call("POST", "/authorizations", {"actions": ["send", "read"], "pick": True, "for": "listener-4"})
print(asked["url"], flush=True)  # send the person there
while asked["state"] == "waiting":
    time.sleep(0.2)
    asked = call("GET", "/authorizations/" + asked["id"])
grant = asked["id"]

sent = call("POST", "/messages", {
    "grant": grant,
    "idempotency_key": "track-1",
    "card": {"kind": "track", "title": "Blue Monday", "subtitle": "New Order", "url": "https://tracks.example/t#blue-monday"},
})
print("sent", sent["id"], flush=True)

state = ""
while True:
    changes = call("GET", f"/changes?grant={grant}&since={state}")
    state = changes["state"]
    for message in changes["messages"]:
        if "through" not in message:  # written by hand
            print("answer", message["sender"] + ":", message["text"], flush=True)
            sys.exit()
    time.sleep(0.2)
