"""What configure creates and cleanup frees: the model, its inputs, the worker."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from threading import Lock
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from karmma_ros.clip import NANOSECONDS
from karmma_ros.modalities import input_modalities
from karmma_ros.modality import Modality
from karmma_ros.model.backends.selection import choose_device
from karmma_ros.node.declarations import input_declarations
from karmma_ros.node.diagnostics import inference_status, input_status, model_status, WarningLog
from karmma_ros.node.inputs import Inputs
from karmma_ros.node.log import NodeLog
from karmma_ros.node.messages import availability_message, heads_note, Outputs
from karmma_ros.node.model_loader import load_model, Model, ModelLoader
from karmma_ros.node.parameters import Parameters
from karmma_ros.node.worker import Engine, Worker
from karmma_ros.prediction import further_heads
from karmma_ros.stream.events import ActionEvents, EventSettings
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.settings import event_settings, input_settings, make_stream, with_topic
from karmma_ros.stream.window import InferenceTrigger, tick_period_ns
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
import torch

_BACKWARD_JUMP = Duration(seconds=-0.1)
_THREADS = torch.get_num_threads()
"""Torch's choice."""
_CLOCKLESS_CHECKS = 10
"""A player that starts with the node may need this many checks to publish /clock."""


class Session:
    """Everything of a configured node; it belongs to the executor's thread."""

    def __init__(self, node: LifecycleNode, parameters: Parameters) -> None:
        """
        Load the model and prepare what activation starts.

        :raises KarmmaError: when a parameter or the model is not usable; nothing is left behind.
        """
        self._node, self._parameters, self._log = node, parameters, NodeLog(node)
        torch.set_num_threads(parameters['threads'] or _THREADS)
        load = partial(load_model, hub=self._log.info if parameters['allow_hub'] else None)
        self.model = load(parameters['model'], choose_device(parameters['device']),
                          parameters['backend'])
        self._declare_inputs(self.model)
        self._lock = Lock()
        self._stream = self._make_stream(self.model)
        """Filled by the inputs; the worker uses a new one from its next window on."""
        engine = self._engine(self.model, self._stream)
        self._inputs = Inputs(node, parameters, self._lock, self._on_message)
        self._feed(self._stream, self.model)
        # Publishers last: nothing after them fails, so none is left behind.
        self._outputs = Outputs(node)
        self.worker = Worker(
            node, parameters, engine, self._lock, self._inputs, self._outputs)
        self._loader = ModelLoader(load)
        self._failure = ''
        """Why the model that was requested last is not in use."""
        self._activation: ExitStack | None = None
        self._rate_timer: Any = None
        self._trigger = InferenceTrigger()
        self._clockless_checks = 0
        self._warnings = WarningLog(self._log.warning, self._log.info)

    @property
    def active(self) -> bool:
        """Whether inputs and worker run."""
        return self._activation is not None

    def start(self) -> None:
        """Start from empty buffers."""
        self.clear()
        # Undone in reverse, as far as it went: inputs, clocks, and the worker last.
        with ExitStack() as stack:
            self.worker.start()
            stack.callback(self.worker.stop)
            jumps = self._node.get_clock().create_jump_callback(
                JumpThreshold(min_forward=None, min_backward=_BACKWARD_JUMP, on_clock_change=True),
                post_callback=self._on_time_jump)
            stack.callback(jumps.unregister)
            self._start_rate()
            stack.callback(self._stop_rate)
            stack.callback(self._inputs.stop)
            self._inputs.start()
            self._activation = stack.pop_all()

    def stop(self) -> None:
        """Undo `start`; afterwards nothing touches the network."""
        activation, self._activation = self._activation, None
        if activation is not None:
            activation.close()

    def close(self) -> None:
        """Free everything."""
        self.stop()
        self._loader.close()
        self._outputs.destroy()
        self.clear()

    def apply(self, names: set[str]) -> None:
        """Apply new values of these parameters, which were checked."""
        if names & {'model', 'backend'}:
            self._request_model()
        if any(name.endswith('.source') for name in names):
            self._replace(self.model, self._make_stream(self.model))
        if any(name.endswith(('.enabled', '.timeout', '.min_coverage')) for name in names):
            with self._lock:
                self._stream.configure(input_settings(
                    self._parameters, self.model.recogniser.modalities, self.model.bundle.spec,
                    self._with_topic(self.model)))
            own = self.model.recogniser.modalities
            self.worker.discard([m for m in own if f'{m}.enabled' in names
                                 and not self._parameters[f'{m}.enabled']])
        if any(name.startswith('events.') for name in names):
            self._replace(self.model, self._stream)
        if 'rate' in names:
            self._change_rate()
        self._inputs.update(names)
        self.worker.request_report()

    def check_background(self, settings: EventSettings) -> None:
        """
        Check the background class.

        :raises InvalidSettingError: when the model has no such class.
        """
        ActionEvents(settings, self.model.bundle.vocabulary)

    def input_summary(self) -> str:
        """Return the topics that are received, with their types."""
        return self._inputs.summary()

    def check(self) -> None:
        """Do what may not wait for the rate timer, whose clock may stand still."""
        self._take_loaded()
        if not self.active:
            return
        clockless = self._node.get_clock().ros_time_is_active and self._now_ns() == 0
        self._clockless_checks = self._clockless_checks + 1 if clockless else 0
        if self._clockless_checks >= _CLOCKLESS_CHECKS:
            self._log.warning(
                'use_sim_time is true but nothing publishes /clock: play the bag with --clock or '
                'set use_sim_time to false', topic='/clock')
        self._inputs.check()
        self._warnings.update(self._assess())
        self.worker.request_report()

    def clear(self) -> None:
        """Discard every sample, and end the actions in progress."""
        self._inputs.cancel()
        with self._lock:
            self._stream.clear()
        self.worker.reset()

    def announce(self) -> None:
        """Publish and log which model is in use."""
        bundle, device = self.model.bundle, self.model.device
        self._outputs.describe(
            bundle, device, self._parameters['score_threshold'], self._now_ns())
        self._log.info(
            f'model {bundle.model_id} on {device} by {self.model.reason}; inputs '
            f'{", ".join(m.value for m in self.model.recogniser.modalities)}, '
            f'window {bundle.spec.duration:g} s')
        self._log.info(f'calibration of {bundle.model_id}: '
                       f'{bundle.calibration.describe(self.model.recogniser.modalities)}')
        if untrained := bundle.source.get('untrained'):
            self._log.warning(f'{bundle.model_id} is not trained: {untrained}')
        if not bundle.commercial_use:
            self._log.warning(f'{bundle.model_id}: its licence, {bundle.licence}, forbids '
                              'commercial use')
        note = f'results of {bundle.model_id}: {heads_note(bundle.vocabulary)}'
        if further_heads(tuple(bundle.vocabulary.heads)):
            self._log.warning(note)
        elif heads_note(bundle.vocabulary):
            self._log.info(note)

    def report_inactive(self) -> None:
        """Publish that nothing is recognised, also for late joiners."""
        self._outputs.availability.publish(
            availability_message(self._assess(), self._now_ns(), possible=False))

    def diagnose(self) -> list[DiagnosticStatus]:
        """Return the status of the model and, while active, of inputs and inference."""
        statuses = [model_status(self.model, self._loader.loading, self._failure)]
        if not self.active:
            return statuses
        modalities, timings = self._assess(), self.worker.timings
        statuses += [
            input_status(s, self._inputs.facts(s.modality), self._inputs.problem(s.modality))
            for s in modalities]
        return [*statuses, inference_status(
            timings.stats(time.monotonic()), timings.results, timings.skipped,
            self._parameters['rate'], self.worker.blocking_reason(modalities))]

    def _start_rate(self) -> None:
        self._trigger = InferenceTrigger(every_frame=bool(self._stream.hop))
        self._rate_timer = self._node.create_timer(self._period_s(), self._tick)

    def _tick(self) -> None:
        if self._trigger.on_tick():
            self.worker.request_result()

    def _on_message(self) -> None:
        """Run inference if a frame came that the window shows, and a tick is due."""
        if self._trigger.on_frame(self._stream.newest_frame_ns):
            self.worker.request_result()

    def _period_s(self) -> float:
        """Return the period of the rate timer, which rclpy rounds down to nanoseconds."""
        period_ns = tick_period_ns(
            self.model.bundle.spec, self._parameters['rate'], self._hop(self.model))
        return (period_ns + 0.5) / NANOSECONDS

    def _hop(self, model: Model) -> int:
        return model.recogniser.hop(self._parameters['rate'])

    def _change_rate(self) -> None:
        if self._hop(self.model) != self._stream.hop:
            self._replace(self.model, self._make_stream(self.model))
        elif event_settings(self._parameters) != self._event_settings:
            self._replace(self.model, self._stream)
        self._restart_rate()

    def _restart_rate(self) -> None:
        if self.active:
            self._stop_rate()
            self._start_rate()

    def _stop_rate(self) -> None:
        timer, self._rate_timer = self._rate_timer, None
        if timer is not None:
            self._node.destroy_timer(timer)

    def _request_model(self) -> None:
        wanted = self._parameters['model'], self._parameters['backend']
        if wanted == (self.model.name, self.model.wanted_backend):
            self._loader.cancel()
        else:
            self._failure = ''
            self._loader.request(wanted[0], self.model.device, wanted[1])

    def _take_loaded(self) -> None:
        """Switch to the model that was requested; if it failed, the current one stays."""
        outcome = self._loader.poll()
        if outcome is None:
            return
        try:
            if isinstance(outcome, Exception):
                raise outcome
            self._switch(outcome)
        except Exception as error:
            wanted, kept = self._parameters['model'], self.model
            self._failure = f'{wanted} was not loaded: {error}; {kept.bundle.model_id} stays'
            self._log.error(self._failure, topic='model')
            self._node.set_parameters_atomically([
                Parameter('model', value=kept.name),
                Parameter('backend', value=kept.wanted_backend)])

    def _declare_inputs(self, model: Model) -> None:
        """Declare the parameters of a model's inputs, and of those that they are computed from."""
        self._parameters.declare(input_declarations(
            input_modalities(model.recogniser.modalities, model.bundle.spec)))

    def _switch(self, model: Model) -> None:
        self._declare_inputs(model)
        old, stream = self.model, self._stream
        same = (model.bundle.spec, model.recogniser.modalities, self._hop(model)) == (
            old.bundle.spec, old.recogniser.modalities, stream.hop)
        self._replace(model, stream if same else self._make_stream(model))
        self.model = model
        self._restart_rate()
        self.announce()

    def _replace(self, model: Model, stream: SensorStream) -> None:
        """Let the worker use another model or stream; a new stream fills for a window first."""
        engine = self._engine(model, stream)
        if stream is not self._stream:
            self._feed(stream, model)
            self._stream = stream
        self.worker.replace(engine)

    def _feed(self, stream: SensorStream, model: Model) -> None:
        self._inputs.feed(stream, model.bundle.spec, model.recogniser.modalities)

    def _engine(self, model: Model, stream: SensorStream) -> Engine:
        self._event_settings = event_settings(self._parameters)
        events = ActionEvents(self._event_settings, model.bundle.vocabulary)
        return Engine(stream, model.recogniser, model.bundle.model_id, events)

    def _with_topic(self, model: Model) -> frozenset[Modality]:
        return with_topic(self._parameters, model.recogniser.modalities)

    def _make_stream(self, model: Model) -> SensorStream:
        return make_stream(
            model.bundle.spec, model.recogniser.modalities, self._parameters,
            self._with_topic(model), self._hop(model))

    def _assess(self) -> tuple[Any, ...]:
        with self._lock:
            return self._stream.assess(self._now_ns())

    def _on_time_jump(self, jump: Any) -> None:
        self.clear()
        self._log.info('time jump: sensor buffers cleared', topic='time jump')

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
