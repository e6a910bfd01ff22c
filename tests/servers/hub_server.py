"""As much of the Hugging Face hub as its client needs to fetch one model."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as its client needs to fetch a model; `server.folder` is the model."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        folder: Path = self.server.folder
        if self.path.startswith("/api/models/"):
            files = [file for file in folder.rglob("*") if file.is_file()]
            names = [str(file.relative_to(folder)) for file in files]
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": "b" * 40}
                for name, file in zip(names, files, strict=True)
            ]
            about = {
                "id": "owner/tiny",
                "sha": "a" * 40,
                "siblings": [{"rfilename": name} for name in names],
            }
            self.answer(json.dumps(tree if "/tree/" in self.path else about).encode())
        elif "/resolve/" in self.path:
            file = folder / self.path.partition("/resolve/")[2].partition("/")[2]
            self.answer(file.read_bytes())
        else:
            self.send_error(404)

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", hashlib.sha256(content).hexdigest())
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass
