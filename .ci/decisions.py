#!/usr/bin/env python3
"""Writes outside vectors of policy decisions in the form of gateway-core/proxy/tests/decisions.json: every token in its place.

    decisions.py VECTORS OUT
"""
import base64
import json
import sys
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
POINT = KEY.public_key().public_numbers()
JWKS = json.dumps({"keys": [{
    "kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256",
    "x": b64(POINT.x.to_bytes(32, "big")), "y": b64(POINT.y.to_bytes(32, "big")),
}]})


def sign(key, message):
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def token(spec):
    state, claims, now = spec["state"], dict(spec["claims"]), int(time.time())
    if state == "malformed":
        return "abc.def"
    claims.setdefault("exp", now - 3600 if state == "expired" else now + 86400)
    if state == "not_yet_valid":
        claims["nbf"] = now + 86400
    header = {"alg": "none"} if state == "alg_none" else {"alg": "ES256", "kid": "one"}
    message = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
    if state == "alg_none":
        return message + "."
    return message + "." + sign(OTHER if state == "bad_signature" else KEY, message.encode())


def entry(vector):
    vector = json.loads(json.dumps(vector).replace('"@test-jwks"', json.dumps(JWKS)))
    request, made = vector["request"], ""
    spec = request.pop("jwt", None)
    if spec:
        made, where = token(spec), spec["where"]
        if "header" in where:
            request["headers"][where["header"]] = where.get("prefix", "") + made
        elif "cookie" in where:
            request["headers"]["cookie"] = f"{where['cookie']}={made}"
        else:
            request["path"] += ("&" if "?" in request["path"] else "?") + f"{where['param']}={made}"
    headers = vector.get("upstream_headers", {})
    for name, value in headers.items():
        if value is not None:
            payload = made.split(".")[1] if made else ""
            headers[name] = value.replace("@token", f"Bearer {made}").replace("@payload", payload)
    return vector


def main():
    vectors = json.load(open(sys.argv[1]))["vectors"]
    json.dump([entry(vector) for vector in vectors], open(sys.argv[2], "w"))
    print(f"{len(vectors)} decisions")


main()
