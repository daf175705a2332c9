"""The provider, as far as the checks need it: what it signs, and how."""

import hashlib
import hmac
import http.client
import json
import os
import sys
from datetime import datetime, timedelta, timezone

EVENTS = 100
NOT_UNDERSTOOD = [b"", b"ping", b'{"id":"test"}', b"\xff\xfe", b"[]", b'{"type":"otp.delivered","id":7}']


def signature(body):
    """The key is the SHA-256 digest of the secret, not the secret."""
    key = hashlib.sha256(os.environ["NEXO_WEBHOOK_SECRET"].encode()).digest()
    return "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()


def event(number, now):
    """Of each status and carrier some; the first has the id of the document's examples."""
    created = now - timedelta(minutes=7 * number)
    status = ("delivered", "failed", "sent")[number % 3]
    completed = None if status == "sent" else (created + timedelta(seconds=25 + number % 9)).isoformat()
    return {
        "type": f"otp.{status}",
        "id": f"conformance-{number}" if number else "8f2e1c4d-6a1b-4a0e-9c55-0d6f4b1a2c3e",
        "phone": f"+849812345{number:02}",
        "carrier": ("viettel", "vinaphone")[number % 2],
        "status": status,
        "cost": 0.022,
        "error_code": "no_answer" if status == "failed" else None,
        "created_at": created.isoformat(),
        "completed_at": completed,
    }


def main(host):
    now = datetime.now(timezone.utc)
    bodies = [json.dumps(event(number, now)).encode() for number in range(EVENTS)]
    calls = [(body, signature(body), 200) for body in bodies + NOT_UNDERSTOOD]
    calls.append((bodies[0], signature(bodies[1]), 401))
    connection = http.client.HTTPConnection(host, timeout=20)
    for body, signed, expected in calls:
        connection.request("POST", "/webhooks/nexo", body, {"X-NEXO-Signature": signed})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != expected:
            sys.exit(f"{body!r} was answered {answer.status} {text!r}, not {expected}")
    print(f"{EVENTS} events, {len(NOT_UNDERSTOOD)} not understood, 1 forged")


if __name__ == "__main__":
    main(sys.argv[1])
