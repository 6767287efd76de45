"""Reads attachments within the operator's limits, and makes the parts that are sent.

A URL is loaded here and is never given to the provider. Therefore the bytes that are measured and
priced are the bytes that are sent.
"""

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any

from yarl import URL

from app.configuration.sections import AttachmentSettings, HttpTools
from app.documents.folder import Folder
from app.domain.attachments import Source
from app.domain.json_text import write_json
from app.domain.suggestions import shortened
from app.errors import AddressRefused, AttachmentRefused, DownloadFailed
from app.llm.parts import Part, is_media, part_of
from app.media.sizes import PdfSize
from app.media.types import MediaRefused
from app.outbound.addresses import Lookup, look_up
from app.outbound.fetching import Fetcher, WebRequest

#: Runs a blocking function in a thread.
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]

_MAX_NAME_CHARS = 100
# Answers after which another attempt may help.
_PASSING = frozenset(
    (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
)


class AttachmentReader:
    """Reads the attachments of an agent, one after the other.

    The reader has a weakness: all bytes of an attempt stay in memory until the attempt ends. During
    a call, several copies of these bytes are in memory. ``attachments.max_bytes`` and
    ``engine.lane_width`` bound the number of bytes.

    Args:
        rules: The operator's limits.
        in_thread: Runs functions that read files or measure files.
        lookup: Function that looks up a host's name.

    Example:
        reader = AttachmentReader(AttachmentSettings(folder="/srv/in"), in_thread=run_in_thread)
        parts = await reader.read([Source(entry="attachments[0]", place="path", value="7.pdf")])
    """

    def __init__(
        self, rules: AttachmentSettings, *, in_thread: InThread, lookup: Lookup = look_up
    ) -> None:
        self._rules = rules
        self._in_thread = in_thread
        self._folder = None if rules.folder is None else Folder(rules.folder)
        self._fetcher = Fetcher(
            HttpTools(
                allowed_hosts=rules.allowed_hosts,
                allowed_networks=rules.allowed_networks,
                timeout_s=rules.timeout_s,
                max_bytes=rules.max_bytes,
            ),
            lookup=lookup,
        )

    async def read(self, sources: Sequence[Source]) -> list[Part]:
        """Return the parts that send these attachments, in order.

        Raises:
            AttachmentRefused: If an attachment cannot be sent; the message names the entry of the
                attachment.
            DownloadFailed: If a URL cannot be loaded now.
            AddressRefused: If a URL leads to an address that agents must not reach; nothing was
                sent to this address.
        """
        parts: list[Part] = []
        left = self._rules.max_bytes
        for source in sources:
            content, name = await self._loaded(source, left)
            left -= len(content)
            parts.append(await self._in_thread(lambda: self._part(source, content, name)))  # noqa: B023 it runs at once
        return parts

    def read_here(self, sources: Sequence[Source]) -> list[Part] | None:
        """Return the parts for a plan; None if an attachment is a URL or is not on this machine.

        Raises:
            AttachmentRefused: If an attachment certainly cannot be sent.
        """
        parts: list[Part] = []
        left = self._rules.max_bytes
        for source in sources:
            if source.place == "url":
                return None
            if source.place == "path" and self._folder is None:
                return None
            try:
                content, name = self._local(source, left)
            except FileNotFoundError:
                return None
            left -= len(content)
            parts.append(self._part(source, content, name))
        return parts

    async def _loaded(self, source: Source, left: int) -> tuple[bytes, str | None]:
        """Return the content (at most ``left`` bytes) and the name of an attachment."""
        if source.place == "url":
            return await self._download(source, left), _name_of(URL(source.value).name)
        try:
            content, name = await self._in_thread(lambda: self._local(source, left))
        except FileNotFoundError as error:
            raise _refused(
                source,
                f"there is no file {shortened(source.value)} in the folder of this worker: put "
                "it there, or correct the path",
            ) from error
        return content, name

    def _local(self, source: Source, left: int) -> tuple[bytes, str | None]:
        if source.place == "base64":
            return self._decoded(source, left), None
        if self._folder is None:
            raise _refused(
                source,
                f"the path {shortened(source.value)} is not read: set attachments.folder to the "
                "folder of the workers whose files may be sent, or give a URL",
            )
        try:
            content = self._folder.read(source.value, max_bytes=left)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _refused(
                source,
                f"{shortened(source.value)} cannot be read ({error.strerror}): give a path in the "
                "folder of the workers, without symbolic links",
            ) from error
        except ValueError as error:
            raise _refused(source, f"{error}{self._limit_of(left)}") from error
        return content, _name_of(PurePosixPath(source.value).name)

    def _decoded(self, source: Source, left: int) -> bytes:
        text = "".join(source.value.split())
        if len(text) * 3 // 4 > left + 2:
            raise _refused(source, f"has more than {left:,} bytes{self._limit_of(left)}")
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _refused(source, f"is not base64 ({error}): encode the file anew") from error
        if len(content) > left:
            raise _refused(source, f"has more than {left:,} bytes{self._limit_of(left)}")
        return content

    async def _download(self, source: Source, left: int) -> bytes:
        try:
            answer = await self._fetcher.fetch(WebRequest(url=source.value, headers={}))
        except AddressRefused as error:
            raise type(error)(f"{source.entry}: the URL {error}") from error
        except TimeoutError as error:
            raise DownloadFailed(
                f"{source.entry}: the URL gave no whole answer within {self._rules.timeout_s:g} s"
            ) from error
        except ConnectionError as error:
            # The message does not show the URL, because a URL may contain a secret.
            cause = error.__cause__ or "there were too many redirects"
            raise DownloadFailed(f"{source.entry}: the URL cannot be loaded: {cause}") from error
        if answer.status != HTTPStatus.OK:
            problem = f"{source.entry}: the URL answered with status {answer.status}"
            passing = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in _PASSING
            if passing:
                raise DownloadFailed(problem)
            raise AttachmentRefused(f"{problem}: give a URL that needs no login")
        if answer.is_cut or len(answer.body) > left:
            raise _refused(source, f"has more than {left:,} bytes{self._limit_of(left)}")
        return answer.body

    def _limit_of(self, left: int) -> str:
        limit = self._rules.max_bytes
        whose = "" if left == limit else f" of the {limit:,} for all attachments of the agent"
        return f"{whose}: send less, or raise attachments.max_bytes"

    def _part(self, source: Source, content: bytes, name: str | None) -> Part:
        try:
            part = part_of(content, name=name, detail=source.detail)
        except MediaRefused as error:
            named = f" ({shortened(name)})" if name else ""
            raise _refused(source, f"the file{named} {error}") from error
        size = part.get("size")
        if isinstance(size, PdfSize) and size.pages > self._rules.max_pages:
            raise _refused(
                source,
                f"the PDF has {size.pages:,} pages, the limit is {self._rules.max_pages:,}: send "
                "fewer pages, or raise attachments.max_pages",
            )
        return part


def digest_of(parts: Sequence[Part]) -> str:
    """Return a hash of all data that these parts send, in the order of the parts."""
    facts = [
        {key: value for key, value in part.items() if key not in ("data", "size")}
        if is_media(part)
        else part
        for part in parts
    ]
    return hashlib.sha256(write_json(facts, sort_keys=True)).hexdigest()


def _refused(source: Source, problem: str) -> AttachmentRefused:
    return AttachmentRefused(f"{source.entry}: {problem}")


def _name_of(name: str) -> str | None:
    """Return a file's name in the form that a model may see."""
    shown = "".join(each for each in name if each.isprintable())[-_MAX_NAME_CHARS:]
    return shown or None
