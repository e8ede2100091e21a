"""The Hub's HTTP API, as far as its Python client uses it to publish and download
models.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import pathspec
import yaml
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from checkpoint_release.card.hub_terms import LICENSES
from tests.support.hub_server.storage import (
    Account,
    Hub,
    HubError,
    PullRequest,
    Repo,
    StoredFile,
    lfs_pointer,
)
from tests.support.hub_server.trusted import MINT, TrustedPublishers
from tests.support.hub_server.xet import XetStorage

Handler = Callable[[Request], Awaitable[Response]]
SPACE = "@space"
"""What follows the name of a Space among the repositories."""
SIGNED = "X-Amz-Signature=a-secret-signature"


def make_app(hub: Hub, trusted: TrustedPublishers, xet: XetStorage) -> Starlette:
    """The ASGI application over a Hub's storage, whom it trusts, and Xet's storage."""
    model = "/api/models/{namespace}/{name}"
    files = "/{namespace}/{name}"
    routes = [
        ("GET", "/api/whoami-v2", _whoami),
        ("GET", MINT, _mint),
        ("POST", "/oauth/token", _exchange),
        ("POST", "/api/repos/create", _create),
        ("POST", "/api/validate-yaml", _validate_yaml),
        ("GET", model, _info),
        ("GET", model + "/revision/{revision}", _info),
        ("GET", model + "/refs", _refs),
        ("GET", model + "/tree/{revision}", _tree),
        ("POST", model + "/paths-info/{revision}", _paths_info),
        ("GET", model + "/commits/{revision}", _commits),
        ("GET", model + "/discussions", _discussions),
        ("POST", model + "/preupload/{revision}", _preupload),
        ("POST", model + "/commit/{revision}", _commit),
        ("POST", model + "/tag/{revision}", _tag),
        ("DELETE", model + "/tag/{revision}", _delete_tag),
        ("POST", model + "/branch/{revision}", _branch),
        ("POST", "/{namespace}/{name}.git/info/lfs/objects/batch", _lfs_batch),
        ("POST", "/api/complete/{namespace}/{name}/{oid}", _lfs_complete),
        ("POST", "/api/verify/{namespace}/{name}", _lfs_verify),
        ("GET", model + "/xet-write-token/{revision}", _xet_token),
        ("POST", "/xet/{namespace}/{name}/v1/xorbs/default/{hash}", _xorb),
        ("POST", "/xet/{namespace}/{name}/v1/shards", _shard),
        ("PUT", "/storage/{namespace}/{name}/{oid}", _lfs_put),
        ("PUT", "/storage/{namespace}/{name}/{oid}/{part}", _lfs_put),
        ("GET", "/storage/{namespace}/{name}/{oid}/{path:path}", _lfs_get),
        ("GET", files + "/resolve/{revision}/{path:path}", _resolve),  # HEAD too
    ]
    app = Starlette(
        routes=[
            Route(path, _guarded(act), methods=[method]) for method, path, act in routes
        ],
        middleware=[Middleware(SpacesByName)],
    )
    app.state.hub, app.state.trusted, app.state.xet = hub, trusted, xet
    return app


def _guarded(act: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        try:
            response = _moved(request) or await act(request)
        except HubError as error:
            headers = {"X-Error-Message": error.message}
            if error.code:
                headers["X-Error-Code"] = error.code
            response = JSONResponse(
                {"error": error.message, **error.body}, error.status, headers
            )
        response.headers["X-Request-Id"] = "Root=1-test"
        response.headers.setdefault("RateLimit", '"api";r=999;t=300')
        return response

    return handle


class SpacesByName:
    """Serves a Space as the repository of its name and SPACE."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = _place_of_space(scope["path"])
        await self.app(scope, receive, send)


def _place_of_space(path: str) -> str:
    """/api/spaces/ada/x/refs → /api/models/ada/x@space/refs; others stay."""
    for lead, instead in (("/api/spaces/", "/api/models/"), ("/spaces/", "/")):
        if path.startswith(lead):
            namespace, name, *rest = path.removeprefix(lead).split("/")
            bare = name.removesuffix(".git")
            suffix = name.removeprefix(bare)
            return "/".join([f"{instead}{namespace}", f"{bare}{SPACE}{suffix}", *rest])
    return path


def _moved(request: Request) -> Response | None:
    """The answer to who asks for a repository by its former name."""
    places = request.path_params
    former = f"{places.get('namespace')}/{places.get('name')}"
    now = _hub(request).renamed.get(former)
    if now is None:
        return None
    address = str(request.url).replace(f"/{former}", f"/{now}", 1)
    return Response(status_code=307, headers={"Location": address})


def _hub(request: Request) -> Hub:
    return request.app.state.hub


def _account(request: Request) -> Account | None:
    header = request.headers.get("authorization")
    if header is None:
        return None
    token = header.removeprefix("Bearer ")
    account = _hub(request).tokens.get(token)
    if account is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    if not hasattr(request.state, "token"):
        request.state.token = token
        _trusted(request).use(token)
    return account


def _trusted(request: Request) -> TrustedPublishers:
    return request.app.state.trusted


def _repo(request: Request, *, write: bool = False) -> Repo:
    repo_id = f"{request.path_params['namespace']}/{request.path_params['name']}"
    return _hub(request).repo(repo_id, _account(request), write=write)


def _revision(request: Request) -> str:
    return unquote(request.path_params.get("revision", "main"))


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


# Who, and which repositories


async def _whoami(request: Request) -> Response:
    account = _account(request)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    if account.repository is not None:  # nobody stands behind it
        raise HubError(403, "This token has no user")
    orgs = [{"name": name, "roleInOrg": role} for name, role in account.orgs.items()]
    described: dict[str, Any] = {"displayName": "test", "role": account.role}
    if account.role == "fineGrained":
        scoped = [
            {"entity": {"name": name, "type": "user"}, "permissions": permissions}
            for name, permissions in account.scoped.items()
        ]
        described["fineGrained"] = {"global": [], "scoped": scoped}
    token = {"type": "access_token", "accessToken": described}
    return JSONResponse(
        {"type": "user", "name": account.name, "orgs": orgs, "auth": token}
    )


async def _mint(request: Request) -> Response:
    authorization = request.headers.get("authorization", "")
    audience = request.query_params["audience"]
    return JSONResponse(_trusted(request).mint(authorization, audience))


async def _exchange(request: Request) -> Response:
    asked = await request.json()
    trusted = _trusted(request)
    return JSONResponse(trusted.exchange(asked, _hub(request), _base(request)))


async def _create(request: Request) -> Response:
    hub, account, asked = _hub(request), _account(request), await request.json()
    if account is None:
        raise HubError(401, "Invalid username or password.")
    namespace = asked["organization"] or account.name
    repo_id = f"{namespace}/{asked['name']}"
    if asked.get("type") == "space":
        if asked.get("sdk") != "static":
            raise HubError(400, "only static Spaces are free")
        repo_id += SPACE
    if hub.creation_refused or not account.can_write(repo_id):
        raise HubError(
            403,
            "You don't have the rights to create a model under the namespace"
            f" {namespace!r}",
        )
    url = f"{_base(request)}/{repo_id}"
    if repo_id in hub.repos:
        raise HubError(409, "You already created this model repo", url=url)
    hub.create(repo_id, private=asked.get("visibility") == "private")
    return JSONResponse({"url": url, "name": repo_id})


async def _info(request: Request) -> Response:
    repo = _repo(request)
    commit = repo.resolve(_revision(request))
    siblings = [
        {"rfilename": path, "size": entry.size, "blobId": entry.oid, **_lfs(entry)}
        for path, entry in commit.files.items()
    ]
    described = {
        "id": repo.repo_id.removesuffix(SPACE),
        "modelId": repo.repo_id.removesuffix(SPACE),
        "sha": commit.oid,
        "private": repo.private,
        "gated": "auto" if repo.gated else False,
        "lastModified": commit.date,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "tags": [],
        "siblings": siblings,
    }
    return JSONResponse(described)


async def _validate_yaml(request: Request) -> Response:
    text = (await request.json())["content"]
    if not text.startswith("---\n"):
        warning = {"message": "empty or missing yaml metadata in repo card"}
        return JSONResponse({"warnings": [warning], "errors": []})
    errors = list(_card_errors(text.split("---\n", 2)[1]))
    answer = {"errors": [{"message": message} for message in errors], "warnings": []}
    return JSONResponse(answer, 400 if errors else 200)


def _card_errors(front_matter: str) -> Iterator[str]:
    """What the Hub refuses of a card; it knows more than this."""
    try:
        fields = yaml.safe_load(front_matter) or {}
    except yaml.YAMLError as error:
        yield str(error)
        return
    if fields.get("license", "mit") not in LICENSES:
        yield '"license" must be one of ' + ", ".join(sorted(LICENSES)[:5])
    for result in fields.get("model-index", []):
        if "name" not in result:
            yield '"model-index[0].name" is required'


# Reading


def _lfs(entry: StoredFile) -> dict[str, Any]:
    if entry.sha256 is None:
        return {}
    size = len(lfs_pointer(entry.sha256, entry.size))
    return {
        "lfs": {
            "oid": entry.sha256,
            "sha256": entry.sha256,
            "size": entry.size,
            "pointerSize": size,
        }
    }


def _listed(path: str, entry: StoredFile) -> dict[str, Any]:
    return {
        "type": "file",
        "path": path,
        "size": entry.size,
        "oid": entry.oid,
        **_lfs(entry),
    }


def _page(request: Request, items: list[Any]) -> Response:
    start, size = int(request.query_params.get("cursor", 0)), _hub(request).page_size
    response = JSONResponse(items[start : start + size])
    if start + size < len(items):
        rest = request.url.include_query_params(cursor=start + size)
        response.headers["Link"] = f'<{rest}>; rel="next"'
    return response


async def _tree(request: Request) -> Response:
    commit = _repo(request).resolve(_revision(request))
    folders = {path.rpartition("/")[0] for path in commit.files if "/" in path}
    listed = [
        {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        for path in sorted(folders)
    ]
    return _page(
        request, listed + [_listed(path, entry) for path, entry in commit.files.items()]
    )


async def _paths_info(request: Request) -> Response:
    commit = _repo(request).resolve(_revision(request))
    asked = parse_qs((await request.body()).decode()).get("paths", [])
    return JSONResponse(
        [_listed(path, commit.files[path]) for path in asked if path in commit.files]
    )


async def _commits(request: Request) -> Response:
    listed = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "date": commit.date,
            "authors": [{"user": commit.author}],
        }
        for commit in _repo(request).history(_revision(request))
    ]
    return _page(request, listed)


def _refs_of(prefix: str, refs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in refs
    ]


async def _refs(request: Request) -> Response:
    repo = _repo(request)
    pulls = {
        name: oid for name, oid in repo.branches.items() if name.startswith("refs/pr/")
    }
    branches = [item for item in repo.branches.items() if item[0] not in pulls]
    listed = {
        "branches": _refs_of("refs/heads/", branches),
        "converts": [],
        "tags": _refs_of("refs/tags/", repo.tags.items()),
    }
    if "include_prs" in request.query_params:
        listed["pullRequests"] = _refs_of("", pulls.items())
    return JSONResponse(listed)


async def _discussions(request: Request) -> Response:
    repo, wanted = _repo(request), request.query_params.get("status")
    _require_pulls(repo)
    named = {"name": repo.repo_id, "type": "model"}
    listed = [
        {
            "title": pull.title,
            "num": pull.number,
            "author": {"name": pull.author},
            "createdAt": "2026-01-01T00:00:00.000Z",
            "status": pull.status,
            "repo": named,
            "isPullRequest": True,
        }
        for pull in repo.pulls
        if wanted in (None, "all", pull.status)
    ]
    start = int(request.query_params.get("p", 0)) * 10
    page = {
        "count": len(listed),
        "start": start,
        "discussions": listed[start : start + 10],
    }
    return JSONResponse(page)


def _require_pulls(repo: Repo) -> None:
    if repo.pulls_disabled:
        raise HubError(403, "Discussions are disabled for this repo")


async def _resolve(request: Request) -> Response:
    repo = _repo(request)
    if repo.access_denied(_account(request)):
        message = f"Access to model {repo.repo_id} is restricted."
        raise HubError(403, message, "GatedRepo")
    path = unquote(request.path_params["path"])
    commit, entry = repo.entry(_revision(request), path)
    etag = f'"{entry.sha256 or entry.oid}"'
    headers = {"X-Repo-Commit": commit.oid, "ETag": etag, "Accept-Ranges": "bytes"}
    if entry.sha256 is None:
        return _bytes(request, repo.content(path, entry), headers)
    # The bytes of LFS files lie with another host: the same machine, by its other name.
    storage = _base(request).replace("127.0.0.1", "localhost")
    headers |= {
        "X-Linked-Etag": etag,
        "X-Linked-Size": str(entry.size),
        "Location": (
            f"{storage}/storage/{repo.repo_id}/{entry.sha256}/{quote(path)}?{SIGNED}"
        ),
    }
    return Response(status_code=302, headers=headers)


def _bytes(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    asked = request.headers.get("range")
    if asked is None:
        return Response(content, headers=headers, media_type="application/octet-stream")
    start = int(asked.removeprefix("bytes=").partition("-")[0])
    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return Response(
        content[start:], 206, headers, media_type="application/octet-stream"
    )


# Writing


async def _preupload(request: Request) -> Response:
    asked = await request.json()
    pull = request.query_params.get("create_pr") == "1"
    repo, revision = _repo(request, write=not pull), _revision(request)
    commit = repo.resolve(revision)
    ignore = asked.get("gitIgnore")
    if ignore is None and ".gitignore" in commit.files:
        ignore = repo.blobs[commit.files[".gitignore"].oid].decode()
    ignored = pathspec.PathSpec.from_lines("gitignore", (ignore or "").splitlines())
    answers = []
    for file in asked["files"]:
        there = commit.files.get(file["path"])
        mode = "lfs" if _goes_to_lfs(request, repo, file) else "regular"
        answers.append(
            {
                "path": file["path"],
                "uploadMode": mode,
                "shouldIgnore": ignored.match_file(file["path"]),
                "oid": (there.sha256 or there.oid) if there else None,
            }
        )
    return JSONResponse({"files": answers})


def _goes_to_lfs(request: Request, repo: Repo, file: dict[str, Any]) -> bool:
    """By its name, its size, or because it is no text."""
    by_name = repo.in_lfs(_revision(request), file["path"])
    is_large = file["size"] >= _hub(request).lfs_over
    return by_name or is_large or b"\0" in base64.b64decode(file["sample"])


def _require_room(hub: Hub, repo: Repo, wanted: list[dict[str, Any]]) -> None:
    """Refuse what the storage can't take."""
    coming = sum(each["size"] for each in wanted if each["oid"] not in repo.lfs)
    held = sum(
        len(content) for each in hub.repos.values() for content in each.lfs.values()
    )
    if hub.room is not None and held + coming > hub.room:
        raise HubError(
            403, "Private repository storage limit reached, please upgrade your plan"
        )


async def _lfs_batch(request: Request) -> Response:
    hub, asked = _hub(request), await request.json()
    repo = _repo(request, write="ref" in asked)
    _require_room(hub, repo, asked["objects"])
    base, answers = _base(request), []
    for wanted in asked["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        answer: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in repo.lfs:
            put = f"{base}/storage/{repo.repo_id}/{oid}"
            upload: dict[str, Any] = {"href": f"{put}?{SIGNED}"}
            if size > hub.multipart_over:
                parts = range(1, -(-size // hub.chunk_size) + 1)
                upload["href"] = f"{base}/api/complete/{repo.repo_id}/{oid}?{SIGNED}"
                urls = {str(part): f"{put}/{part}?{SIGNED}" for part in parts}
                upload["header"] = {"chunk_size": str(hub.chunk_size), **urls}
            answer["actions"] = {
                "upload": upload,
                "verify": {"href": f"{base}/api/verify/{repo.repo_id}"},
            }
        answers.append(answer)
    return JSONResponse(
        {"transfer": "basic", "objects": answers},
        media_type="application/vnd.git-lfs+json",
    )


def _stored_repo(request: Request) -> Repo:
    if request.url.query != SIGNED:  # storage knows no tokens, only signed addresses
        raise HubError(403, "SignatureDoesNotMatch")
    return _hub(request).repos[
        f"{request.path_params['namespace']}/{request.path_params['name']}"
    ]


async def _xet_token(request: Request) -> Response:
    if not _xet(request).spoken:
        raise HubError(404, "Not Found")
    pull = request.query_params.get("create_pr") == "1"
    repo = _repo(request, write=not pull)
    address = f"{_base(request)}/xet/{repo.repo_id}"
    return JSONResponse(
        {"casUrl": address, "accessToken": "xet-secret", "exp": int(time.time()) + 3600}
    )


def _xet(request: Request) -> XetStorage:
    return request.app.state.xet


async def _xorb(request: Request) -> Response:
    is_new = _xet(request).put(request.path_params["hash"], await request.body())
    return JSONResponse({"was_inserted": is_new})


async def _shard(request: Request) -> Response:
    places = request.path_params
    repo = _hub(request).repos[f"{places['namespace']}/{places['name']}"]
    repo.lfs |= _xet(request).files(await request.body())
    return JSONResponse({"result": 1})


async def _lfs_put(request: Request) -> Response:
    repo = _stored_repo(request)
    oid = request.path_params["oid"]
    content = await request.body()
    part = request.path_params.get("part")
    if part is None:
        _keep(repo, oid, content)
    else:
        repo.parts[oid, int(part)] = content
    return Response(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})


def _keep(repo: Repo, oid: str, content: bytes) -> None:
    if hashlib.sha256(content).hexdigest() != oid:
        raise HubError(400, "XAmzContentSHA256Mismatch")
    repo.lfs[oid] = content


async def _lfs_complete(request: Request) -> Response:
    repo = _stored_repo(request)
    oid = request.path_params["oid"]
    asked = await request.json()
    content = b""
    for part in asked["parts"]:
        piece = repo.parts[oid, part["partNumber"]]
        if part["etag"] != f'"{hashlib.md5(piece).hexdigest()}"':
            raise HubError(400, "InvalidPart")
        content += piece
    _keep(repo, oid, content)
    return JSONResponse({"success": True})


async def _lfs_verify(request: Request) -> Response:
    repo, asked = _repo(request), await request.json()
    if len(repo.lfs.get(asked["oid"], b"")) != asked["size"]:
        raise HubError(422, "the object was not uploaded, or has another size")
    return JSONResponse({})


async def _lfs_get(request: Request) -> Response:
    repo, path = _stored_repo(request), unquote(request.path_params["path"])
    oid = request.path_params["oid"]
    entry = StoredFile("", len(repo.lfs[oid]), oid)
    return _bytes(request, repo.content(path, entry), {"ETag": f'"{oid}"'})


async def _commit(request: Request) -> Response:
    lines = [json.loads(line) for line in (await request.body()).splitlines() if line]
    pull = request.query_params.get("create_pr") == "1"
    repo = _repo(request, write=not pull)
    revision = _revision(request)
    account = _account(request)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    if not pull:
        if revision not in repo.branches:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        commit = repo.apply(revision, revision, lines, account.name)
        return JSONResponse(_committed(request, repo, commit.oid))
    _require_pulls(repo)
    number = len(repo.pulls) + 1
    commit = repo.apply(f"refs/pr/{number}", revision, lines, account.name)
    repo.pulls.append(PullRequest(number, commit.title, account.name))
    url = f"{_base(request)}/{repo.repo_id}/discussions/{number}"
    return JSONResponse(
        {**_committed(request, repo, commit.oid), "pullRequestUrl": url}
    )


def _committed(request: Request, repo: Repo, oid: str) -> dict[str, Any]:
    return {
        "success": True,
        "commitOid": oid,
        "commitUrl": f"{_base(request)}/{repo.repo_id}/commit/{oid}",
        "hookOutput": "",
    }


async def _tag(request: Request) -> Response:
    repo, asked = _repo(request, write=True), await request.json()
    target = repo.resolve(_revision(request))
    if asked["tag"] in repo.tags:
        raise HubError(409, "Tag reference exists already")
    repo.tags[asked["tag"]] = target.oid
    return JSONResponse({})


async def _delete_tag(request: Request) -> Response:
    repo = _repo(request, write=True)
    if repo.tags.pop(_revision(request), None) is None:
        raise HubError(404, "Tag not found", "RevisionNotFound")
    return JSONResponse({})


async def _branch(request: Request) -> Response:
    repo, text = _repo(request, write=True), await request.body()
    start = (json.loads(text) if text else {}).get("startingPoint", "main")
    if _revision(request) in repo.branches:
        raise HubError(409, "Reference already exists")
    repo.branches[_revision(request)] = repo.resolve(start).oid
    return JSONResponse({})
