"""The client for ordinary code."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from service.client import recognition, stored
from service.client.calls import Call, Page, connection, error_of
from service.client.models import ImportOutcome, ImportSummary
from service.client.retrying import Attempts, unreachable
from service.client.transfers import Download, Upload, pieces

P = ParamSpec("P")
T = TypeVar("T")
MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def _answered(build: Callable[P, Call[T]]) -> Callable[Concatenate[ShrinkFace, P], T]:
    """A method that makes a call and returns its result."""

    def method(self: ShrinkFace, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._send(build(*args, **kwargs))

    return described(method, build)


def _listed(build: Callable[P, Call[Page[T]] | None]) -> Callable[Concatenate[ShrinkFace, P], Iterator[T]]:
    """A method that makes one call after another and yields the items of their results."""

    def method(self: ShrinkFace, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._walk(build(*args, **kwargs))

    return described(method, build)


def described(method: MethodT, build: Callable[..., Any]) -> MethodT:
    """Give a method the name, docstring and parameters of the function that builds its call."""
    built = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    named: Any = method
    named.__name__ = named.__qualname__ = build.__name__
    named.__doc__ = build.__doc__
    named.__signature__ = built.replace(
        parameters=[own, *built.parameters.values()], return_annotation=inspect.Signature.empty
    )
    return method


class ShrinkFace:
    """A ShrinkFace service. May be used from several threads; close it, or use it in a `with` statement.

        with ShrinkFace("http://127.0.0.1:8000") as service:
            service.enrol("ada.jpg", person_id="ada")
            for face in service.identify("somebody.jpg").faces:
                print(face.decision.person_id)

    Args:
        base_url: where the service is.
        api_key: `sf_...`, where the service needs one.
        timeout_s: for connecting, and for every silence while sending or waiting; of each attempt.
        retries: attempts after the first; see `service.client.retrying` for which calls are sent again, and when.
        transport: instead of httpx's own, such as one with another idea of certificates.

    Raises:
        InvalidArgument: `base_url` is no HTTP address.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(**connection(base_url, api_key, timeout_s), transport=transport)
        self._timeout_s = timeout_s
        self._retries = retries

    enrol = _answered(recognition.enrol)
    identify = _answered(recognition.identify)
    verify = _answered(recognition.verify)
    detect = _answered(recognition.detect)
    embeddings = _answered(recognition.embeddings)
    identify_many = _listed(recognition.identify_many)
    enrol_many = _listed(recognition.enrol_many)

    galleries = _answered(stored.galleries)
    gallery = _answered(stored.gallery)
    create_gallery = _answered(stored.create_gallery)
    configure_gallery = _answered(stored.configure_gallery)
    delete_gallery = _answered(stored.delete_gallery)

    persons = _listed(stored.persons)
    person = _answered(stored.person)
    add_person = _answered(stored.add_person)
    update_person = _answered(stored.update_person)
    delete_person = _answered(stored.delete_person)
    export_person = _answered(stored.export_person)

    faces = _answered(stored.faces)
    delete_face = _answered(stored.delete_face)
    crop = _answered(stored.crop)

    journal = _listed(stored.journal)
    ready = _answered(stored.ready)

    def export_gallery(self, gallery: str, *, after: str | None = None) -> Iterator[bytes]:
        """Yields the persons of a gallery by id, each a line of JSON without its end, as `import_gallery` takes them.

        A stream that breaks off is carried on behind the last line that came.

        Args:
            after: begin behind this person id.

        Raises:
            ProblemError, Unreachable, UnexpectedAnswer.
        """
        download = Download(gallery, after)
        attempts = Attempts(self._retries, repeatable=True)
        while True:
            try:
                with self._http.stream(**download.request()) as response:
                    if response.is_success:
                        for piece in response.iter_bytes():
                            yield from download.lines(piece)
                        download.end()
                        return
                    response.read()
                pause_s = attempts.after_answer(response)
                if pause_s is None:
                    raise error_of(response)
            except httpx.RequestError as error:
                if download.moved:
                    attempts = Attempts(self._retries, repeatable=True)
                pause_s = attempts.after_error(error)
            time.sleep(pause_s)

    def import_gallery(
        self,
        gallery: str,
        lines: Iterable[bytes],
        *,
        on_outcome: Callable[[ImportOutcome], object] | None = None,
    ) -> ImportSummary:
        """Store persons, each a line of JSON with embeddings or pictures in base64; an open binary file will do.

        The call is never sent again by itself. Nobody is stored twice, so it may be made again.

        Args:
            on_outcome: told what became of each line, when all are stored.

        Raises:
            ImportStopped: the service stored only the first ones.
            ProblemError: it stored none.
            Unreachable, UnexpectedAnswer: some may have been stored.
        """
        upload = Upload(gallery)
        try:
            with self._http.stream(**upload.request(pieces(lines), self._timeout_s)) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                for piece in response.iter_bytes():
                    for outcome in upload.outcomes(piece):
                        if on_outcome is not None:
                            on_outcome(outcome)
        except httpx.RequestError as error:
            raise unreachable(error) from error
        return upload.summary()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _walk(self, call: Call[Page[T]] | None) -> Iterator[T]:
        while call is not None:
            page = self._send(call)
            yield from page.items
            call = page.following()

    def _send(self, call: Call[T]) -> T:
        attempts = Attempts(self._retries, repeatable=call.repeatable)
        while True:
            try:
                response = self._http.request(**call.request())
            except httpx.RequestError as error:
                pause_s = attempts.after_error(error)
            else:
                answered = attempts.after_answer(response)
                if answered is None:
                    return call.result(response)
                pause_s = answered
            time.sleep(pause_s)
