"""What the Hub holds: accounts, repositories, commits, refs, blobs and LFS objects."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

GITATTRIBUTES = b"".join(
    f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n".encode()
    for suffix in ("bin", "gz", "onnx", "pt", "pth", "safetensors", "zip")
)


class HubError(Exception):
    """A refusal, as the Hub phrases it: status, X-Error-Code and message."""

    def __init__(self, status: int, message: str, code: str = "", **body: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body


@dataclass(frozen=True)
class Account:
    """Whom a token stands for.

    Attributes:
        name: the user's own namespace.
        orgs: organisation → role ("read", "write" or "admin").
        role: what the token itself allows ("read", "write" or "fineGrained").
        scoped: of a fine-grained token, namespace or repository → permissions.
        repository: of a trusted publisher's token, the only one that it is for.
    """

    name: str
    orgs: dict[str, str] = field(default_factory=dict)
    role: str = "write"
    scoped: dict[str, list[str]] = field(default_factory=dict)
    repository: str | None = None

    def can_read(self, repo_id: str) -> bool:
        namespace = repo_id.partition("/")[0]
        own = namespace == self.name or namespace in self.orgs
        return own or repo_id == self.repository

    def can_write(self, repo_id: str) -> bool:
        if self.repository is not None:
            return repo_id == self.repository
        namespace = repo_id.partition("/")[0]
        own = namespace == self.name or self.orgs.get(namespace) in ("write", "admin")
        if self.role == "fineGrained":
            return "repo.write" in self.scoped.get(namespace, [])
        return own and self.role == "write"


@dataclass(frozen=True)
class StoredFile:
    """One path of a commit: git blob id (of the pointer, for LFS), size in bytes,
    sha256 if it is in LFS.
    """

    oid: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    date: str
    author: str
    files: dict[str, StoredFile]


@dataclass
class PullRequest:
    number: int
    title: str
    author: str
    status: str = "open"


def git_blob_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize"
        f" {size}\n".encode()
    )


@dataclass
class Repo:
    """A model repository."""

    repo_id: str
    private: bool
    lies: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)
    pulls_disabled: bool = False
    gated: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)

    # Reading

    def resolve(self, revision: str) -> Commit:
        for refs in (self.branches, self.tags):
            if revision in refs:
                return self.commits[refs[revision]]
        if revision in self.commits:
            return self.commits[revision]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def entry(self, revision: str, path: str) -> tuple[Commit, StoredFile]:
        commit = self.resolve(revision)
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound")
        return commit, commit.files[path]

    def content(self, path: str, stored: StoredFile) -> bytes:
        content = self.lfs[stored.sha256] if stored.sha256 else self.blobs[stored.oid]
        if self.lies.get(path) == "served":
            return bytes(byte ^ 0xFF for byte in content)
        return content

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Every path and its bytes, for a test to look at."""
        return {
            path: self.content(path, entry)
            for path, entry in self.resolve(revision).files.items()
        }

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits that lead to a revision, newest first."""
        found, at = [], self.resolve(revision)
        while True:
            found.append(at)
            if at.parent is None:
                return found
            at = self.commits[at.parent]

    def access_denied(self, account: Account | None) -> bool:
        """Whether the repository asks for access, and this account has none."""
        return self.gated and not (account and account.can_write(self.repo_id))

    def in_lfs(self, revision: str, path: str) -> bool:
        """Whether .gitattributes sends the path to LFS."""
        entry = self.resolve(revision).files.get(".gitattributes")
        lines = self.blobs[entry.oid].decode().splitlines() if entry else []
        patterns = [line.split()[0] for line in lines if "filter=lfs" in line]
        name = path.rpartition("/")[2]
        return any(
            fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(name, pattern)
            for pattern in patterns
        )

    # Writing

    def store(self, path: str, content: bytes) -> StoredFile:
        """Keep a regular file's bytes (or others, where the Hub is to lie)."""
        if self.lies.get(path) == "stored":
            content += b"?"
        oid = git_blob_oid(content)
        self.blobs[oid] = content
        return StoredFile(oid, len(content))

    def link(self, path: str, sha256: str) -> StoredFile:
        """Point a path to an LFS object that was uploaded."""
        if sha256 not in self.lfs:
            raise HubError(
                400, f"LFS pointer pointed to a file that does not exist: {sha256}"
            )
        content = self.lfs[sha256]
        if self.lies.get(path) == "stored":
            content += b"?"
            sha256 = hashlib.sha256(content).hexdigest()
            self.lfs[sha256] = content
        pointer = lfs_pointer(sha256, len(content))
        self.blobs[git_blob_oid(pointer)] = pointer
        return StoredFile(git_blob_oid(pointer), len(content), sha256)

    def commit(
        self,
        branch: str,
        title: str,
        files: dict[str, StoredFile],
        *,
        message: str = "",
        author: str = "hub",
    ) -> Commit:
        """Append a commit with exactly these files to a branch."""
        parent = self.branches.get(branch)
        tree = {
            path: (entry.oid, entry.sha256) for path, entry in sorted(files.items())
        }
        seed = json.dumps(
            [self.repo_id, parent, title, message, tree, len(self.commits)]
        )
        date = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.commits))
        stamp = date.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        oid = hashlib.sha1(seed.encode()).hexdigest()
        commit = Commit(
            oid, parent, title, message, stamp, author, dict(sorted(files.items()))
        )
        self.commits[oid] = commit
        self.branches[branch] = oid
        return commit

    def edit(
        self, changes: dict[str, bytes | None], title: str = "edited on the Hub"
    ) -> Commit:
        """What a person does in the browser: put files (or remove them, with None) in
        one commit on main.
        """
        files = dict(self.resolve("main").files)
        for path, content in changes.items():
            if content is None:
                del files[path]
            elif self.in_lfs("main", path):
                digest = hashlib.sha256(content).hexdigest()
                self.lfs[digest] = content
                files[path] = self.link(path, digest)
            else:
                files[path] = self.store(path, content)
        return self.commit("main", title, files, author="person")

    def apply(
        self, branch: str, base: str, lines: list[dict[str, Any]], author: str
    ) -> Commit:
        """Make a commit of the lines of a commit request."""
        header: dict[str, Any] = {}
        start = self.resolve(base)
        files = dict(start.files)
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    header = value
                    if value.get("parentCommit") not in (None, start.oid):
                        raise HubError(
                            412,
                            "A commit has happened since. Please refresh and try"
                            " again.",
                        )
                case "file":
                    files[value["path"]] = self.store(
                        value["path"], base64.b64decode(value["content"])
                    )
                case "lfsFile":
                    files[value["path"]] = self.link(value["path"], value["oid"])
                    self._track(
                        branch if branch in self.branches else base,
                        value["path"],
                        files,
                    )
                case "deletedFile":
                    if value["path"] not in files:
                        raise HubError(
                            404, "A file with this name doesn't exist", "EntryNotFound"
                        )
                    del files[value["path"]]
                case "deletedFolder":
                    files = {
                        path: entry
                        for path, entry in files.items()
                        if not path.startswith(value["path"])
                    }
                case key:
                    raise HubError(400, f"unknown operation {key}")
        if branch not in self.branches:
            self.branches[branch] = start.oid
        return self.commit(
            branch,
            header["summary"],
            files,
            message=header.get("description", ""),
            author=author,
        )

    def _track(self, at: str, path: str, files: dict[str, StoredFile]) -> None:
        """Name a file in .gitattributes that went to LFS for what is in it."""
        if self.in_lfs(at, path):
            return
        text = self.blobs[files[".gitattributes"].oid].decode()
        line = f"{path} filter=lfs diff=lfs merge=lfs -text\n"
        if line not in text:
            files[".gitattributes"] = self.store(
                ".gitattributes", (text + line).encode()
            )

    def merge(self, number: int) -> Commit:
        """Merge a pull request into main, as a person does in the browser."""
        pull = self.pulls[number - 1]
        pull.status = "merged"
        files = self.resolve(f"refs/pr/{number}").files
        return self.commit("main", f"{pull.title} (#{number})", files, author="person")


class Hub:
    """Every account and repository.

    Attributes:
        tokens: whom each stands for.
        repos, renamed: by name; the former name of a repository → that of now.
        lies: path → "stored" or "served", of files that the Hub holds changed.
        creation_refused: whether nobody may make a repository.
        room: bytes that the storage may hold in all; None: any number.
        lfs_over: bytes from which on a file goes to LFS, whatever it is called.
        page_size: how many items a list's page has.
        multipart_over, chunk_size: bytes from which on a file goes in parts, and of a
            part.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, Account] = {}
        self.repos: dict[str, Repo] = {}
        self.lies: dict[str, str] = {}
        self.creation_refused = False
        self.renamed: dict[str, str] = {}
        self.room: int | None = None
        self.lfs_over = 10_000_000
        self.page_size = 1000
        self.multipart_over = 1 << 30
        self.chunk_size = 1 << 20

    def create(self, repo_id: str, private: bool = True) -> Repo:
        """A new repository, with the first commit that the Hub makes."""
        repo = Repo(repo_id, private, self.lies)
        repo.commit(
            "main",
            "initial commit",
            {".gitattributes": repo.store(".gitattributes", GITATTRIBUTES)},
        )
        self.repos[repo_id] = repo
        return repo

    def repo(
        self, repo_id: str, account: Account | None, *, write: bool = False
    ) -> Repo:
        """The repository, if this account may see it (and change it)."""
        repo = self.repos.get(repo_id)
        visible = repo is not None and (
            not repo.private or (account and account.can_read(repo_id))
        )
        if repo is None or not visible:
            if account is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        if write and account is None:
            raise HubError(401, "Invalid username or password.")
        if write and account and not account.can_write(repo_id):
            raise HubError(
                403, "Forbidden: you must use a write token to upload to a repository."
            )
        return repo
