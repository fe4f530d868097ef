"""
The lifecycle node `karmma`.

configure loads and warms up the model, activate starts inputs and worker, deactivate
stops and joins them, cleanup frees everything. Exceptions in transitions are logged here, since
rclpy drops them silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from karmma_ros.errors import KarmmaError
from karmma_ros.model.registry import check_model
from karmma_ros.node.diagnostics import diagnostics_message, lifecycle_status
from karmma_ros.node.inputs import check_inputs
from karmma_ros.node.log import describe, NodeLog
from karmma_ros.node.parameters import guard_services, overrides_warning, Parameters
from karmma_ros.node.session import Session
from karmma_ros.stream.settings import event_settings
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger
import torch

_SUCCESS, _FAILURE, _ERROR = (
    TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR)
_CHECK_PERIOD_S = 0.5
_CHECKS_PER_DIAGNOSIS = 2


class KarmmaNode(LifecycleNode):
    """Recognise actions from whichever of its sensors are available."""

    def __init__(self, name: str = 'karmma', **options: Any) -> None:
        """Declare the parameters; everything else is done by configure."""
        super().__init__(name, **options)
        self._session: Session | None = None
        self._enabled, self._checks = True, 0
        self._log = NodeLog(self)
        self._guard_change_state()
        self.parameters = Parameters(
            self, (check_inputs, self._check_model, self._check_events), self._on_changed)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_service(Trigger, '~/reset', self._on_reset)
        guard_services(self, self._log)
        warning = overrides_warning(self)
        if warning:
            self._log.warning(warning)
        # Steady, to run also while simulated time stands still.
        self.create_timer(
            _CHECK_PERIOD_S, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    @property
    def state_label(self) -> str:
        """Return the lifecycle state, such as `active`."""
        return str(self._state_machine.current_state[1])

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, warm it up, and create what activate starts."""
        return self._attempt('configure', self._configure, self._release, _FAILURE)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start from empty buffers."""
        return self._attempt(
            'activate', lambda: self._activate(state), lambda: self._deactivate(state), _FAILURE)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the inputs and the worker; the model stays loaded."""
        return self._attempt('deactivate', lambda: self._deactivate(state), self._stop, _ERROR)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and the publishers."""
        return self._attempt('cleanup', self._release, lambda: None, _ERROR)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything, from any state."""
        return self._attempt('shutdown', lambda: self._end(state), self._release, _FAILURE)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that configure can be repeated."""
        return self._attempt('error handling', self._release, lambda: None, _FAILURE)

    def shut_down(self) -> None:
        """Shut the node down from any state; nothing happens when it is finalized."""
        if self.state_label == 'finalized':
            return
        try:
            self.trigger_shutdown()
        except Exception:
            # Without its context, e.g. after rclpy's own SIGINT handler, the node has no states.
            self._attempt('shutdown', self._release, lambda: None, _FAILURE)

    def _attempt(
        self, what: str, act: Callable[[], None], undo: Callable[[], None],
        otherwise: TransitionCallbackReturn,
    ) -> TransitionCallbackReturn:
        try:
            act()
            return _SUCCESS
        except KarmmaError as error:
            self._log.error(f'{what} failed: {error}')
        except Exception as error:
            self._log.error(f'{what} failed: {describe(error)}')
        with suppress(Exception):
            undo()
        return otherwise

    def _guard_change_state(self) -> None:
        """Reject an invalid transition: before Kilted rclpy raises instead."""
        service = getattr(self, '_service_change_state', None)
        if service is None:
            return
        change = service.callback

        def guarded(request: Any, response: Any) -> Any:
            try:
                self._check_transition(request.transition)
                return change(request, response)
            except Exception as error:
                self._log.error(f'invalid transition from {self.state_label}: {error}',
                                topic='transition')
                response.success = False
                return response
        service.callback = guarded

    def _check_transition(self, requested: Any) -> None:
        """
        Reject what rcl would reject with an unthrottled warning for each request.

        :raises LookupError: for a transition that the current state does not have.
        """
        possible = {each[0]: each[1] for each in self._state_machine.available_transitions}
        if not requested.label and requested.id not in possible:
            raise LookupError(f'got transition {requested.id}; expected ' + (' or '.join(
                f'{number} ({label})' for number, label in possible.items()) or 'none'))

    def _configure(self) -> None:
        for problem in self.parameters.problems:
            raise problem
        self._session = Session(self, self.parameters)
        self._session.worker.pause(not self._enabled)
        self._session.announce()
        self.parameters.frozen = True

    def _activate(self, state: LifecycleState) -> None:
        assert self._session is not None  # by rclpy's state machine
        super().on_activate(state)
        self._session.start()
        paused = '' if self._enabled else '; paused by ~/enable'
        self._log.info(f'active: receives {self._session.input_summary()}{paused}')

    def _deactivate(self, state: LifecycleState) -> None:
        assert self._session is not None
        inputs = self._session.input_summary()
        self._session.stop()
        self._session.report_inactive()
        self._session.clear()
        super().on_deactivate(state)
        self._log.info(f'inactive: no longer receives {inputs}')

    def _stop(self) -> None:
        if self._session is not None:
            self._session.stop()
            self._session.clear()

    def _release(self) -> None:
        """Undo `_configure`."""
        session, self._session = self._session, None
        self.parameters.frozen = False
        if session is not None:
            session.close()
        del session
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _end(self, state: LifecycleState) -> None:
        if self._session is not None and self._session.active:
            try:
                self._deactivate(state)
            except RuntimeError:  # of RCLError
                if self.context.ok():
                    raise
                # rclpy's SIGINT handler shut the context down meanwhile: nobody to report to.
        self._release()

    def _check_model(self, values: Mapping[str, Any], changed: set[str]) -> None:
        if 'model' in changed and self._session is not None:
            check_model(values['model'], values['allow_hub'])

    def _check_events(self, values: Mapping[str, Any], changed: set[str]) -> None:
        settings = event_settings(values)
        if 'events.background' in changed and self._session is not None:
            self._session.check_background(settings)

    def _on_changed(self, names: set[str]) -> None:
        if self._session is None:
            return
        try:
            self._session.apply(names)
        except Exception as error:  # it would leave the executor
            self._log.error(f'{", ".join(sorted(names))}: {describe(error)}')

    def _on_enable(self, request: Any, response: Any) -> Any:
        self._enabled = request.data
        if self._session is not None:
            self._session.worker.pause(not request.data)
        what = 'recognition resumed' if request.data else 'recognition paused'
        if self._session is not None and self._active:
            self._log.info(f'{what}; receives {self._session.input_summary()}')
        when = '' if self._active else f'; the node is {self.state_label}'
        response.success, response.message = True, what + when
        return response

    def _on_reset(self, request: Any, response: Any) -> Any:
        if self._session is not None and self._active:
            self._session.clear()
        response.success = self._active
        response.message = 'all samples discarded' if self._active else (
            f'nothing to discard: the node is {self.state_label}')
        return response

    @property
    def _active(self) -> bool:
        return self._session is not None and self._session.active

    def _on_timer(self) -> None:
        try:
            if self._session is not None:
                self._session.check()
            self._checks += 1
            if self._checks % _CHECKS_PER_DIAGNOSIS == 0:
                self._diagnose()
        except Exception as error:  # it would leave the executor
            self._log.error(describe(error), topic='timer')

    def _diagnose(self) -> None:
        statuses = [lifecycle_status(self.state_label)]
        if self._session is not None:
            statuses += self._session.diagnose()
        self._diagnostics.publish(diagnostics_message(
            self.get_fully_qualified_name(), self.get_clock().now().nanoseconds, statuses))
