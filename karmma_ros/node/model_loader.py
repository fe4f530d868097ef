"""Load a model in the background, beside the one in use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
import ctypes
from dataclasses import dataclass
import gc
from threading import Thread

from karmma_ros.model.backends import choose
from karmma_ros.model.bundle import Bundle, load_bundle
from karmma_ros.model.registry import find_model, Report
from karmma_ros.stream.recogniser import Recogniser


@dataclass(frozen=True)
class Model:
    """A loaded and warmed up model."""

    name: str
    """Value of the parameter `model`."""
    bundle: Bundle
    device: str
    wanted_backend: str
    """Value of the parameter `backend`."""
    reason: str
    """Why this backend runs it."""
    recogniser: Recogniser


def load_model(name: str, device: str, backend: str, hub: Report | None = None) -> Model:
    """
    Load a model and warm it up.

    :param hub: as of `find_model`.
    :raises InvalidSettingError: for a model that does not exist, or a backend that cannot be used.
    :raises BundleError: for a damaged model directory.
    """
    bundle = load_bundle(find_model(name, hub=hub), device)
    chosen, reason = choose(bundle, device, backend, keep_weights=False)
    recogniser = Recogniser(
        chosen, bundle.vocabulary, bundle.spec, calibration=bundle.calibration)
    recogniser.warm_up()
    _return_memory()
    return Model(name, bundle, device, backend, reason, recogniser)


def _return_memory() -> None:
    """
    Return freed memory to the system: the C library keeps hundreds of megabytes.

    What torch leaves for the garbage collector refers to the frames of the loading, and so to the
    model itself: a model that is replaced would stay, with its threads, until some later time.
    """
    gc.collect()
    with suppress(AttributeError, OSError):  # only the GNU C library has it
        ctypes.CDLL(None).malloc_trim(0)


class ModelLoader:
    """
    Load models in a thread of its own, one at a time.

    Of those that are requested meanwhile only the last is loaded. All methods are for one thread,
    the executor's.
    """

    def __init__(self, load: Callable[[str, str, str], Model]) -> None:
        self._load = load
        self._requested: tuple[str, str, str] | None = None
        self._thread: Thread | None = None
        self._outcome: Model | Exception | None = None

    @property
    def loading(self) -> str:
        """Return the name of the requested model, empty without one."""
        return self._requested[0] if self._requested else ''

    def request(self, name: str, device: str, backend: str) -> None:
        """Load a model, instead of any that was requested before."""
        self._requested = name, device, backend
        if self._thread is None:
            self._start()

    def cancel(self) -> None:
        """Drop the request; what is being loaded will be freed."""
        self._requested = None

    def poll(self) -> Model | Exception | None:
        """Return the requested model or its error, once; None until then."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread.join()
        started, outcome = self._started, self._outcome
        self._thread = self._outcome = None
        if self._requested is None:
            return None
        if started != self._requested:
            self._start()
            return None
        self._requested = None
        return outcome

    def close(self) -> None:
        """Drop the request, and wait until nothing is being loaded."""
        self.cancel()
        if self._thread is not None:
            self._thread.join()
        self._thread = self._outcome = None

    def _start(self) -> None:
        assert self._requested is not None
        self._started = self._requested
        self._thread = Thread(
            target=self._run, args=self._started, name='karmma loader', daemon=True)
        self._thread.start()

    def _run(self, *request: str) -> None:
        try:
            self._outcome = self._load(*request)
        except Exception as error:  # returned by poll
            self._outcome = error
