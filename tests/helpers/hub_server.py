"""A Hugging Face Hub on loopback: as much of its HTTP protocol as pushing and pulling a model needs."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from helpers.hub_storage import MAIN, Commit, HubError, HubStorage, Repository, etag, is_lfs


TOKEN = "hf_loopback"
USER = "me"
REPOSITORY = r"(?P<repo>[^/]+/[^/]+)"
BYTES = "application/octet-stream"


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    server: "HubServer"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        """Keep the output of tests clean."""

    def do_GET(self) -> None:  # noqa: N802
        """Handle a request by the first matching route."""
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            for methods, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, url.path)
                if match and self.command in methods:
                    with self.server.storage.lock:
                        wanted = self.headers.get("Range", "")
                        self.server.requests.append(f"{self.command} {unquote(url.path)} {wanted}".rstrip())
                        return answer(self, **{key: unquote(value or "") for key, value in match.groupdict().items()})
            raise HubError(404, f"There is no {self.command} {url.path}")
        except HubError as err:
            self._send_error(err)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None, sent: int = -1) -> None:
        """Send a response; with `sent`, break the connection after that many bytes of the body."""
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if sent >= 0:
            self.wfile.write(content[:sent])
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(content)

    def _send_json(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(body).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send_error(self, err: HubError) -> None:
        headers = {"X-Error-Message": err.message}
        if err.code is not None:
            headers["X-Error-Code"] = err.code
        if "commit" in err.body:
            headers["X-Repo-Commit"] = str(err.body["commit"])
        url = {"url": f"{self.server.url}/{err.body['name']}"} if "name" in err.body else {}
        self._send_json({"error": err.message, **url}, err.status, headers)

    def _signed_in(self) -> bool:
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {TOKEN}"):
            raise HubError(401, "Invalid credentials in Authorization header")
        return given is not None

    def _must_be_signed_in(self) -> None:
        if not self._signed_in():
            raise HubError(401, "Invalid username or password.")

    def _readable(self, repo: str) -> Repository:
        return self.server.storage.get(repo, self._signed_in())

    def _writable(self, repo: str) -> Repository:
        self._must_be_signed_in()
        return self.server.storage.get(repo, signed_in=True)

    def create(self) -> None:
        """Create a repository."""
        self._must_be_signed_in()
        wanted = json.loads(self.content)
        name = f"{wanted['organization'] or USER}/{wanted['name']}"
        self.server.storage.create(name, private=wanted.get("visibility") == "private")
        self._send_json({"url": f"{self.server.url}/{name}", "name": name})

    def validate_yaml(self) -> None:
        """Check the metadata of a card, and that it has some."""
        metadata = front_matter(json.loads(self.content)["content"])
        warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        self._send_json({"errors": [], "warnings": warnings})

    def preupload(self, repo: str, revision: str) -> None:
        """Return which files go to LFS, and which the repository has already."""
        known = self._writable(repo).resolve(revision).files
        paths = [file["path"] for file in json.loads(self.content)["files"]]
        modes = [
            {
                "path": path,
                "uploadMode": "lfs" if is_lfs(path) else "regular",
                "shouldIgnore": False,
                "oid": etag(path, known[path]) if path in known else None,
            }
            for path in paths
        ]
        self._send_json({"files": modes})

    def lfs_batch(self, repo: str) -> None:
        """Return the addresses for LFS objects."""
        self._writable(repo)
        objects = json.loads(self.content)["objects"]
        for wanted in objects:
            if wanted["oid"] not in self.server.storage.uploads:
                wanted["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{wanted['oid']}"}}
        self._send_json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        """Store an LFS object; only authorized clients have its address."""
        self.server.storage.upload(oid, self.content)
        self._send(b"")

    def commit(self, repo: str, revision: str) -> None:
        """Make a commit, on a new pull request when asked."""
        repository = self._writable(repo)
        lines = [json.loads(line) for line in self.content.splitlines()]
        commit, number = self.server.storage.apply(repository, revision, lines, "create_pr" in self.query)
        url = f"{self.server.url}/{repo}"
        pull_request = f"{url}/discussions/{number}" if number else None
        self._send_json(
            {"commitUrl": f"{url}/commit/{commit.sha}", "commitOid": commit.sha, "pullRequestUrl": pull_request}
        )

    def create_branch(self, repo: str, branch: str) -> None:
        """Create a branch."""
        repository = self._writable(repo)
        if branch in repository.refs:
            raise HubError(409, f"Reference already exists: {branch}")
        repository.refs[branch] = repository.resolve(json.loads(self.content).get("startingPoint", MAIN)).sha
        self._send(b"", 201)

    def info(self, repo: str, revision: str = MAIN) -> None:
        """Describe a repository, by its card."""
        repository = self._readable(repo)
        commit = repository.resolve(revision or MAIN)
        metadata = front_matter(commit.files.get("README.md", b"").decode())
        self._send_json(
            {
                "id": repo,
                "sha": commit.sha,
                "private": repository.private,
                "siblings": [{"rfilename": path} for path in sorted(commit.files)],
                **{key: metadata[key] for key in ("library_name", "pipeline_tag", "tags") if key in metadata},
            }
        )

    def refs(self, repo: str) -> None:
        """List branches."""
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha}
            for name, sha in self._readable(repo).refs.items()
            if not name.startswith("refs/")
        ]
        self._send_json({"branches": branches, "converts": [], "tags": []})

    def tree(self, repo: str, revision: str, folder: str) -> None:
        """List all files below a folder."""
        commit = self._readable(repo).resolve(revision)
        prefix = f"{folder}/" if folder else ""
        found = [file_entry(commit, path) for path in sorted(commit.files) if path.startswith(prefix)]
        if not found:
            raise HubError(404, f"{folder} does not exist", "EntryNotFound", commit=commit.sha)
        self._send_json(found)

    def resolve(self, repo: str, revision: str, path: str) -> None:
        """Serve a file or its metadata, in part when asked."""
        commit, content = self._readable(repo).read(revision, path)
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{etag(path, content)}"', "Content-Type": BYTES}
        if is_lfs(path):
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
        if self.command == "GET" and self.server.broken.get((repo, path), 0) > 0:
            self.server.broken[repo, path] -= 1
            return self._send(content, headers=headers, sent=len(content) // 2)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self._send(content, headers=headers)
        start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self._send(content[start : end + 1], 206, headers)


ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("POST",), r"/api/repos/create", Handler.create),
    (("POST",), r"/api/validate-yaml", Handler.validate_yaml),
    (("POST",), rf"/api/models/{REPOSITORY}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    (("POST",), rf"/api/models/{REPOSITORY}/commit/(?P<revision>[^/]+)", Handler.commit),
    (("POST",), rf"/api/models/{REPOSITORY}/branch/(?P<branch>[^/]+)", Handler.create_branch),
    (("GET",), rf"/api/models/{REPOSITORY}(/revision/(?P<revision>[^/]+))?", Handler.info),
    (("GET",), rf"/api/models/{REPOSITORY}/refs", Handler.refs),
    (("GET",), rf"/api/models/{REPOSITORY}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", Handler.tree),
    (("POST",), rf"/{REPOSITORY}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (("PUT",), r"/lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_upload),
    (("GET", "HEAD"), rf"/{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]


class HubServer(ThreadingHTTPServer):
    """The server, as a context manager; tests read and damage its storage directly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage = HubStorage()
        self.requests: list[str] = []
        self.broken: dict[tuple[str, str], float] = {}

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()

    def files(self, repo: str, revision: str = MAIN) -> dict[str, bytes]:
        """Return the files of a repository, without the file that every new one has."""
        files = self.storage.repositories[repo].resolve(revision).files
        return {path: content for path, content in files.items() if path != ".gitattributes"}

    def commits(self, repo: str) -> list[str]:
        """Return the summaries of all commits after the first, which every new repository has."""
        return [commit.summary for commit in self.storage.repositories[repo].commits.values()][1:]

    def replace(self, repo: str, **changes: bytes | None) -> None:
        """Commit changed files, by path; `None` deletes one."""
        files = {**self.storage.repositories[repo].resolve(MAIN).files, **changes}
        kept = {path: content for path, content in files.items() if content is not None}
        self.storage.repositories[repo].commit(MAIN, "change", kept)

    def truncate(self, repo: str, path: str) -> None:
        """Cut the second half of a stored file; downloads of what is left succeed."""
        content = self.files(repo)[path]
        self.replace(repo, **{path: content[: len(content) // 2]})

    def drop_connections(self, repo: str, path: str, times: float = float("inf")) -> None:
        """Break downloads of a file in its middle, all of them or the next ones."""
        self.broken[repo, path] = times


def front_matter(card: str) -> dict:
    """Return the metadata of a card."""
    match = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    try:
        return (yaml.safe_load(match[1]) if match else None) or {}
    except yaml.YAMLError as err:
        raise HubError(400, f"Invalid metadata: {err}") from err


def file_entry(commit: Commit, path: str) -> dict[str, Any]:
    """Return the entry of a file in a listing."""
    content = commit.files[path]
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": etag(path, content)}
    if is_lfs(path):
        entry["lfs"] = {"oid": etag(path, content), "size": len(content), "pointerSize": 134}
    return entry


__all__ = ["TOKEN", "USER", "HubServer", "front_matter"]
