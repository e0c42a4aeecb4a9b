# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether something answers: HTTP, TCP and Unix sockets; and how long it did not."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

#: Bytes of an HTTP answer that are looked at.
MAX_BODY = 256 * 1024

#: Seconds that one question may take.
PATIENCE = 2.0

#: Seconds between two questions while the downtime is measured; also the error of the measurement.
SAMPLE = 0.05


@dataclass(frozen=True)
class Answer:
    """What came back.

    :param good: whether it is the answer that was wanted.
    :param said: what was seen, such as ``HTTP 503`` or ``connection refused``.
    """

    good: bool
    said: str


@dataclass(frozen=True)
class Probe:
    """One question to an address.

    :param url: ``http://…``, ``https://…``, ``tcp://host:port`` or ``unix:///path``.
    :param statuses: HTTP statuses that are good; empty: 200 to 299.
    :param body: regular expression that the HTTP answer must contain; empty: any answer.
    :param headers: HTTP headers to send.
    :param verify: whether the certificate of an https address must be valid.
    """

    url: str
    statuses: tuple[int, ...] = ()
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    verify: bool = True

    @property
    def title(self) -> str:
        """What messages call it: the address without a password in it."""
        return re.sub(r"//[^/@]*@", "//", self.url)

    def ask(self, patience: float = PATIENCE) -> Answer:
        """Ask once and return the answer; it never raises for an address that does not answer."""
        parts = urllib.parse.urlsplit(self.url)
        try:
            if parts.scheme in ("http", "https"):
                return self._ask_http(parts, patience)
            if parts.scheme == "unix":
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.settimeout(patience)
                    connection.connect(parts.path)
                return Answer(True, "connected")
            with socket.create_connection((parts.hostname or "", parts.port or 0), patience):
                return Answer(True, "connected")
        except socket.timeout:  # TimeoutError only since Python 3.10
            return Answer(False, f"no answer within {patience:g} s")
        except (OSError, http.client.HTTPException) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return Answer(False, words[:1].lower() + words[1:])

    def _ask_http(self, parts: urllib.parse.SplitResult, patience: float) -> Answer:
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection(host, parts.port, timeout=patience, context=context)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=patience)
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers={"Connection": "close", **self.headers})
            response = connection.getresponse()
            wanted = response.status in self.statuses if self.statuses else 200 <= response.status < 300
            if not wanted:
                return Answer(False, f"HTTP {response.status}")
            if self.body:
                text = response.read(MAX_BODY).decode("utf-8", "replace")
                if not re.search(self.body, text):
                    return Answer(False, f"HTTP {response.status}, but its body does not match '{self.body}'")
            return Answer(True, f"HTTP {response.status}")
        finally:
            connection.close()


def parse_address(url: str) -> str:
    """Return an address that can be asked.

    :raises ValueError: when it is not one; the message says what it must look like.
    """
    parts = urllib.parse.urlsplit(url)
    usage = "write it as http://host:port/path, https://…, tcp://host:port or unix:///path"
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"'{url}' has no valid port; {usage}") from None
    if parts.scheme in ("http", "https") and parts.hostname:
        return url
    if parts.scheme == "tcp" and parts.hostname and port:
        return url
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return url
    raise ValueError(f"'{url}' is not an address that can be asked; {usage}")


class Gap:
    """Finds how long something did not answer in a row of samples, from the last good to the first good answer."""

    def __init__(self) -> None:
        self.answered = False
        self._last_good: float | None = None
        self._before_gap: float | None = None
        self._broken = False
        self._seconds = 0.0

    def add(self, moment: float, good: bool) -> None:
        """Take in one sample.

        :param moment: when the answer came, in seconds of a monotonic clock.
        """
        if not good:
            if not self._broken:
                self._broken, self._before_gap = True, self._last_good
            return
        if self._broken and self._before_gap is not None:
            self._seconds += moment - self._before_gap
        self._broken, self._last_good, self.answered = False, moment, True

    @property
    def seconds(self) -> float | None:
        """Seconds without an answer; ``None`` while it does not answer or when it never did before."""
        if self._broken or not self.answered:
            return None
        return self._seconds

    def lasting(self, moment: float) -> float | None:
        """Seconds without an answer up to a moment, also when it has not come back; ``None`` if it never answered."""
        if self._broken:
            return self._seconds + (moment - self._before_gap) if self._before_gap is not None else None
        return self._seconds if self.answered else None


class Sampler:
    """Asks again and again in a thread of its own, to measure the downtime.

    :param ask: the question; whether the answer was good.
    :param clock: seconds of a monotonic clock.
    :param gap: where the samples go.
    """

    def __init__(self, ask: Callable[[], bool], clock: Callable[[], float], gap: Gap | None = None) -> None:
        self.ask = ask
        self.gap = gap or Gap()
        self.began_good = False
        self._clock = clock
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Ask once, then go on until :meth:`stop`."""
        self.began_good = self.sample()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the last answer is in when this returns."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def sample(self) -> bool:
        """Ask once and keep the answer."""
        good = self.ask()
        self.gap.add(self._clock(), good)
        return good

    def _work(self) -> None:
        while not self._end.wait(SAMPLE):
            self.sample()


def all_good(probes: Sequence[Probe]) -> Answer:
    """Ask every probe and return the first answer that is not good, named by its address."""
    for probe in probes:
        answer = probe.ask()
        if not answer.good:
            return Answer(False, f"{probe.title}: {answer.said}")
    return Answer(True, "")
