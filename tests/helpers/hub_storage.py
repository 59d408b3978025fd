"""Repositories of the loopback Hub: commits, branches and files, all in memory."""

import base64
import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field


LFS_SUFFIXES = (".safetensors", ".bin", ".model")
MAIN = "main"


class HubError(Exception):
    """An error response of the server.

    Args:
        status: HTTP status.
        code: value of `X-Error-Code`, which the client tells errors apart by.
        message: text of the error.
        body: further fields of the answer.
    """

    def __init__(self, status: int, message: str, code: str | None = None, **body: object):
        super().__init__(message)
        self.status, self.code, self.message, self.body = status, code, message, body


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    sha: str
    summary: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """A model repository: its commits, and the names that point to them."""

    name: str
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit(MAIN, "initial commit", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})

    def resolve(self, revision: str) -> Commit:
        """Return the commit of a branch, a pull request or a hash."""
        sha = self.refs.get(revision, revision)
        if sha not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def read(self, revision: str, path: str) -> tuple[Commit, bytes]:
        """Return a file, and the commit it was read at."""
        commit = self.resolve(revision)
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", commit=commit.sha)
        return commit, commit.files[path]

    def commit(self, branch: str, summary: str, files: dict[str, bytes]) -> Commit:
        """Point a branch to a new state."""
        digest = hashlib.sha1(f"{self.name} {branch} {summary} {len(self.commits)}".encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + git_oid(content).encode())
        commit = Commit(digest.hexdigest(), summary, files)
        self.commits[commit.sha] = commit
        self.refs[branch] = commit.sha
        return commit

    def open_pull_request(self) -> tuple[int, str]:
        """Create a pull request on the main branch; return its number and branch."""
        number = 1 + sum(ref.startswith("refs/pr/") for ref in self.refs)
        self.refs[f"refs/pr/{number}"] = self.refs[MAIN]
        return number, f"refs/pr/{number}"


class HubStorage:
    """The repositories of the loopback Hub."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.lock = threading.RLock()

    def create(self, name: str, private: bool) -> Repository:
        """Create a repository; an existing one is an error that the client may ignore."""
        if name in self.repositories:
            raise HubError(409, "You already created this model repo", name=name)
        self.repositories[name] = Repository(name, private)
        return self.repositories[name]

    def get(self, name: str, signed_in: bool) -> Repository:
        """Return a repository that the caller may read."""
        repository = self.repositories.get(name)
        if repository is None:
            raise HubError(404, "Repository not found", "RepoNotFound")
        if repository.private and not signed_in:
            raise HubError(401, "Invalid username or password.", "RepoNotFound")
        return repository

    def apply(
        self, repository: Repository, revision: str, lines: Iterable[dict], create_pr: bool
    ) -> tuple[Commit, int]:
        """Make the commit that the lines of a payload describe; the number is that of its pull request, or 0."""
        number, branch = repository.open_pull_request() if create_pr else (0, revision)
        files, summary = dict(repository.resolve(branch).files), ""
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "header":
                summary = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self._uploaded(value["oid"])
            else:
                raise HubError(400, f"Unknown operation {key}")
        return repository.commit(branch, summary, files), number

    def _uploaded(self, oid: str) -> bytes:
        if oid not in self.uploads:
            raise HubError(400, f"The LFS object {oid} was never uploaded")
        return self.uploads[oid]

    def upload(self, oid: str, content: bytes) -> None:
        """Store an LFS object, checked against its name."""
        if sha256(content) != oid:
            raise HubError(400, "The content does not match its hash")
        self.uploads[oid] = content


def is_lfs(path: str) -> bool:
    """Return whether a file is stored outside of git."""
    return path.endswith(LFS_SUFFIXES)


def sha256(content: bytes) -> str:
    """Return the name of an LFS object."""
    return hashlib.sha256(content).hexdigest()


def git_oid(content: bytes) -> str:
    """Return the name of a git blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def etag(path: str, content: bytes) -> str:
    """Return the ETag of a file."""
    return sha256(content) if is_lfs(path) else git_oid(content)


__all__ = ["MAIN", "Commit", "HubError", "HubStorage", "Repository", "etag", "git_oid", "is_lfs", "sha256"]
