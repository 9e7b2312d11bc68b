"""Sessions: what a conversation is set to, how long it lives, and how a client comes back to it.

Contract: a session lives `ttl` past its last use (sliding), then all of it is gone at once; for a
day after that it is told apart from one that never was. Each change of a session or its turns
raises `version`. A resumption handle opens its session on any replica. It is good until a newer one
was used: a client whose answer got lost may try again with what it has. Only a keyed digest proves
it; nothing is stored per handle. Not for: turns (`turns`), or who may drive the session (`leases`).
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from parley_core.errors import InvalidArgument, NotFound, Unavailable

from parley_asr_context.keys import SessionName, check_name, tenant_index
from parley_asr_context.redis_store import Script, Store, redis_failures

_PRUNE_SAMPLE = 8
_PRUNE_MIN_AGE_MS = 60_000
_PAGE_SLACK = 32
# One after another a page waits for as many answers of Redis as it has sessions.
_READ_AT_ONCE = 16
MAX_PAGE_BYTES = 3 * 1024 * 1024
"""A page that is larger ends sooner: most clients of gRPC take no message of more than 4 MiB."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session as stored.

    Attributes:
        name: Its identity.
        uid: Random, new for each creation under the same name.
        config: The gateway's own settings; opaque here.
        system_prompt: Persona and style that every prompt of the session begins with; may be empty.
        create_time: Unix time, seconds.
        expires_in: Seconds until it expires if nobody uses it.
        version: Counts the changes of what prompts are built from.
        turn_count: Number of turns.
        last_sequence: Highest response sequence number that a driver reported.
        resumption_handle: The newest handle. Secret: who holds it may open the session.
    """

    name: SessionName
    uid: str
    config: bytes
    system_prompt: str
    create_time: float
    expires_in: float
    version: int
    turn_count: int
    last_sequence: int
    resumption_handle: str


class Sessions:
    """All sessions in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index_forget = Script(store.client, "index_forget")

    async def create(
        self,
        name: SessionName,
        *,
        config: bytes = b"",
        system_prompt: str = "",
        ttl: float,
    ) -> Session:
        """Create a session that lives `ttl` seconds past its last use.

        Raises:
            AlreadyExists: The name is taken.
        """
        index = tenant_index(name.tenant)
        with redis_failures():
            # The index goes first: a crash in between leaves a name without a session, which `page`
            # passes over, and never a session that no list shows.
            now = await self._now_ms()
            await self._store.client.zadd(index, {name.session_id: now}, nx=True)
        answer = await self._store.run(
            "session_create",
            name,
            secrets.token_hex(16),
            # A life of 0 ms would end before its session is told.
            max(1, round(ttl * 1000)),
            "config",
            config,
            "system_prompt",
            system_prompt,
        )
        with contextlib.suppress(Unavailable):  # the session is there; the next creation prunes
            with redis_failures():
                # The entry may be of a namesake which is gone, and somebody about to forget it.
                await self._store.client.zadd(index, {name.session_id: now})
            await self._prune(name.tenant, now)
        return read_session(name, answer[0])

    async def get(self, name: SessionName, *, touch: bool = False) -> Session:
        """Read a session; `touch` counts as use.

        Raises:
            NotFound: No such session, or it has expired.
        """
        return read_session(name, (await self._store.run("session_get", name, int(touch)))[0])

    async def update(
        self,
        name: SessionName,
        *,
        config: bytes | None = None,
        system_prompt: str | None = None,
        last_sequence: int | None = None,
        fence: int | None = None,
    ) -> Session:
        """Replace what is given; `last_sequence` only ever grows and leaves the version as it is.

        Raises:
            NotFound: No such session, or it has expired.
            Aborted: The fence is stale.
        """
        fields: list[object] = []
        if config is not None:
            fields += ["config", config]
        if system_prompt is not None:
            fields += ["system_prompt", system_prompt]
        last = "" if last_sequence is None else last_sequence
        answer = await self._store.run("session_update", name, last, *fields, fence=fence)
        return read_session(name, answer[0])

    async def delete(self, name: SessionName) -> None:
        """Delete a session with its turns, audio and lease.

        Raises:
            NotFound: No such session, or it has expired.
        """
        index = tenant_index(name.tenant)
        with redis_failures():
            score = await self._store.client.zscore(index, name.session_id)
        await self._store.run("session_delete", name)
        if score is None:
            return
        # The session is gone, and a list passes over an entry that stays. Not any entry goes: a
        # session may have been made again under the name since.
        with contextlib.suppress(Unavailable), redis_failures():
            await self._index_forget.run([index], [round(score), name.session_id])

    async def page(
        self, tenant: str, *, page_size: int, page_token: str = ""
    ) -> tuple[list[Session], str]:
        """List a tenant's live sessions, newest first; forget expired ones that it comes across.

        Returns:
            At most `page_size` sessions, and the token of the next page ('' = this is the last).

        Raises:
            InvalidArgument: The page token is not one of ours.
        """
        last = _read_page_token(page_token)
        found: list[Session] = []
        taken = 0
        while True:
            rows = await self._newest(tenant, last, page_size + _PAGE_SLACK)
            if not rows:
                return found, ""
            for at in range(0, len(rows), _READ_AT_ONCE):
                part = rows[at : at + _READ_AT_ONCE]
                sessions = await self._live([SessionName(tenant, each) for _, each in part])
                for row, session in zip(part, sessions, strict=True):
                    if session is not None:
                        taken += len(session.config) + len(session.system_prompt.encode())
                        full = len(found) == page_size or taken > MAX_PAGE_BYTES
                        if found and full and last:
                            return found, _page_token(last)
                        found.append(session)
                    last = row
                gone = [row for row, each in zip(part, sessions, strict=True) if each is None]
                if gone:
                    with redis_failures():
                        now = await self._now_ms()
                    await self._forget(tenant, gone, now)

    async def _live(self, names: list[SessionName]) -> list[Session | None]:
        """Reads several at once; None where one is gone."""
        found: list[Session | None] = [None] * len(names)

        async def read(place: int, name: SessionName) -> None:
            with contextlib.suppress(NotFound):
                found[place] = await self.get(name)

        try:
            async with asyncio.TaskGroup() as reading:
                for place, name in enumerate(names):
                    reading.create_task(read(place, name))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        return found

    async def open_handle(self, handle: str) -> Session:
        """Find the session of a resumption handle; counts as use of both.

        Raises:
            InvalidArgument: The text is no handle.
            NotFound: Its session is gone, or a newer handle was used.
        """
        try:
            packed = base64.b64decode(handle, altchars=b"-_", validate=True).decode()
            tenant, session_id, serial_text, proof = packed.split("\n")
            serial = int(serial_text)
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise InvalidArgument(
                "resumption_handle is malformed",
                field="resumption_handle",
                reason="HANDLE_MALFORMED",
            ) from None
        name = SessionName(tenant, session_id)
        session = await self.get(name)
        # As bytes: of text that is not ASCII `compare_digest` tells nothing but a TypeError.
        if not hmac.compare_digest(proof.encode(), _proof(session.uid, serial).encode()):
            raise NotFound(
                f"{name} has no such resumption handle",
                reason="HANDLE_UNKNOWN",
                resource=str(name),
            )
        return read_session(
            name, (await self._store.run("handle_open", name, session.uid, serial))[0]
        )

    async def _newest(
        self, tenant: str, after: tuple[int, str] | None, count: int
    ) -> list[tuple[int, str]]:
        """Up to `count` (score, id) of the index, newest first, after the given one."""
        index = tenant_index(tenant)
        bound = str(after[0]) if after else "+inf"
        rows: list[tuple[int, str]] = []
        offset = 0
        with redis_failures():
            while len(rows) < count:
                batch = await self._store.client.zrevrangebyscore(
                    index, bound, "-inf", start=offset, num=count, withscores=True
                )
                offset += len(batch)
                pairs = [(round(float(score)), member.decode()) for member, score in batch]
                rows += [pair for pair in pairs if after is None or pair < after]
                if len(batch) < count:
                    break
        return rows

    async def _forget(self, tenant: str, gone: list[tuple[int, str]], now_ms: int) -> None:
        """Drop index entries (score, id) whose session was found gone, save those being made."""
        told = [
            item for score, member in gone if now_ms - score >= _PRUNE_MIN_AGE_MS
            for item in (score, member)
        ]  # fmt: skip
        if told:
            with redis_failures():
                await self._index_forget.run([tenant_index(tenant)], told)

    async def _now_ms(self) -> int:
        """Redis's clock, Unix time in milliseconds."""
        seconds, microseconds = await self._store.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def _prune(self, tenant: str, now_ms: int) -> None:
        """Drop some index entries whose session is gone, so that the index stays in proportion."""
        index = tenant_index(tenant)
        gone: list[tuple[int, str]] = []
        with redis_failures():
            for member in await self._store.client.zrandmember(index, _PRUNE_SAMPLE):
                score = await self._store.client.zscore(index, member)
                name = SessionName(tenant, member.decode())
                if score is not None and not await self._store.client.exists(name.keys()[0]):
                    gone.append((round(score), name.session_id))
        await self._forget(tenant, gone, now_ms)


def read_session(name: SessionName, answer: list[Any]) -> Session:
    """Read what `session()` of `lua/prelude.lua` answers."""
    flat, pttl, turn_count = answer
    fields = {key.decode(): value for key, value in zip(flat[::2], flat[1::2], strict=True)}
    uid = fields["uid"].decode()
    serial = int(fields["handle_newest"])
    packed = "\n".join((name.tenant, name.session_id, str(serial), _proof(uid, serial)))
    return Session(
        name=name,
        uid=uid,
        config=fields["config"],
        system_prompt=fields["system_prompt"].decode(),
        create_time=int(fields["create_ms"]) / 1000,
        expires_in=pttl / 1000,
        version=int(fields["version"]),
        turn_count=int(turn_count),
        last_sequence=int(fields["last_sequence"]),
        resumption_handle=base64.urlsafe_b64encode(packed.encode()).decode(),
    )


def _proof(uid: str, serial: int) -> str:
    return hmac.new(uid.encode(), f"handle {serial}".encode(), hashlib.sha256).hexdigest()


# Milliseconds since 1970, as scores of the index are.
_MAX_SCORE_DIGITS = 18


def _page_token(last: tuple[int, str]) -> str:
    return base64.urlsafe_b64encode(f"{last[0]}:{last[1]}".encode()).decode()


def _read_page_token(token: str) -> tuple[int, str] | None:
    if not token:
        return None
    try:
        score, session_id = base64.urlsafe_b64decode(token).decode().split(":", 1)
        if len(score) > _MAX_SCORE_DIGITS:
            raise ValueError(score)
        return int(score), check_name(session_id, "page_token")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidArgument(
            "page_token is malformed", field="page_token", reason="PAGE_TOKEN_MALFORMED"
        ) from None
