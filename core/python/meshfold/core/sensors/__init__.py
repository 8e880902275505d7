"""Helpers for code beside a device: reading and retrying, framing bytes, filtering, health, and a device's profile.

Pull (`LocalSensorSource.poll`, or `ManagedRunLoop` for a rhythm) and push (`ReactiveSensorSource`, `PeripheralAdapter`).
"""

from meshfold.core.sensors.backoff import BackoffPolicy, RetryLoop
from meshfold.core.sensors.buffers import BoundedRingBuffer, DoubleBuffer, SequenceCounter
from meshfold.core.sensors.decoding import JsonEventDecoder
from meshfold.core.sensors.detection import DetectionNode
from meshfold.core.sensors.filters import ChangeFilter, ThresholdFilter
from meshfold.core.sensors.framing import DelimitedMessageBuffer, FrameAssembler, crc16
from meshfold.core.sensors.health import SensorHealthWatchdog
from meshfold.core.sensors.peripheral import DuplexPeripheralAdapter, PeripheralAdapter
from meshfold.core.sensors.profile import EmbeddedDeviceProfile, Finding
from meshfold.core.sensors.run_loop import ManagedRunLoop
from meshfold.core.sensors.sources import LocalSensorSource, ReactiveSensorSource

__all__ = (
    "BackoffPolicy",
    "BoundedRingBuffer",
    "ChangeFilter",
    "DelimitedMessageBuffer",
    "DetectionNode",
    "DoubleBuffer",
    "DuplexPeripheralAdapter",
    "EmbeddedDeviceProfile",
    "Finding",
    "FrameAssembler",
    "JsonEventDecoder",
    "LocalSensorSource",
    "ManagedRunLoop",
    "PeripheralAdapter",
    "ReactiveSensorSource",
    "RetryLoop",
    "SensorHealthWatchdog",
    "SequenceCounter",
    "ThresholdFilter",
    "crc16",
)
