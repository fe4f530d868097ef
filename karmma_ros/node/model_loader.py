"""Make a model ready to answer, beside the one that answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
import ctypes
from dataclasses import dataclass
from threading import Thread

from karmma_ros.model.backends import choose
from karmma_ros.model.bundle import Bundle, load_bundle
from karmma_ros.model.registry import find_model
from karmma_ros.stream.recogniser import Recogniser


@dataclass(frozen=True)
class Model:
    """A model that is ready to answer."""

    name: str
    """As the parameter `model` has it."""
    bundle: Bundle
    device: str
    wanted_backend: str
    """As the parameter `backend` has it."""
    reason: str
    """Why this backend runs it."""
    recogniser: Recogniser


def load_model(name: str, device: str, backend: str) -> Model:
    """
    Load a model and let it answer once, so that the first real answer comes at full speed.

    :raises InvalidSettingError: for a model that does not exist, or a backend that cannot be used.
    :raises BundleError: for a damaged model directory.
    """
    bundle = load_bundle(find_model(name), device)
    chosen, reason = choose(bundle, device, backend, keep_weights=False)
    recogniser = Recogniser(chosen, bundle.vocabulary, bundle.spec)
    recogniser.warm_up()
    _give_back_memory()
    return Model(name, bundle, device, backend, reason, recogniser)


def _give_back_memory() -> None:
    """Hand to the system what loading has freed: the C library keeps hundreds of megabytes."""
    with suppress(AttributeError, OSError):  # only the GNU C library has it
        ctypes.CDLL(None).malloc_trim(0)


class ModelLoader:
    """
    Load models in a thread of its own, beside the one that answers.

    One at a time; of those that are asked for meanwhile only the last is loaded. All methods
    are for one thread, the executor's.
    """

    def __init__(self, load: Callable[[str, str, str], Model]) -> None:
        self._load = load
        self._wanted: tuple[str, str, str] | None = None
        self._thread: Thread | None = None
        self._outcome: Model | Exception | None = None

    @property
    def loading(self) -> str:
        """Return the name of the model that is awaited, empty when there is none."""
        return self._wanted[0] if self._wanted else ''

    def ask(self, name: str, device: str, backend: str) -> None:
        """Begin to load a model, instead of any that was asked for before."""
        self._wanted = name, device, backend
        if self._thread is None:
            self._begin()

    def cancel(self) -> None:
        """Want none; what is being loaded will be let go."""
        self._wanted = None

    def poll(self) -> Model | Exception | None:
        """Return the model that was asked for, once, or why it cannot be had; None until then."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread.join()
        begun, outcome = self._begun, self._outcome
        self._thread = self._outcome = None
        if self._wanted is None:
            return None
        if begun != self._wanted:
            self._begin()
            return None
        self._wanted = None
        return outcome

    def close(self) -> None:
        """Want none, and wait until nothing is being loaded."""
        self.cancel()
        if self._thread is not None:
            self._thread.join()
        self._thread = self._outcome = None

    def _begin(self) -> None:
        assert self._wanted is not None
        self._begun = self._wanted
        self._thread = Thread(
            target=self._run, args=self._begun, name='karmma loader', daemon=True)
        self._thread.start()

    def _run(self, *wanted: str) -> None:
        try:
            self._outcome = self._load(*wanted)
        except Exception as error:  # told by poll; a thread's exception is lost otherwise
            self._outcome = error
