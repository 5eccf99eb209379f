"""kvasir: KV-cache memory of a kvasird, from Python.

    import kvasir
    with kvasir.Session() as session:
        model = session.register_model(spec)
        with session.open(model, "sepllm:local_size=256", prompt=kvasir.Prompt(tokens)) as sequence:
            step = sequence.begin(len(tokens) - sequence.rows)
            ...                                    # step[layer].write(), step[layer].visible()
            sequence.commit(tokens[step.row:step.row + step.count])

README.md has an example that runs. Every call ends at its session's deadline and raises a
KvasirError; arrays are the daemon's memory, in place.
"""
from kvasir.device import Device, DeviceRows
from kvasir.errors import (
    ClosedError,
    Code,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    KvasirError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from kvasir.insight import InspectedRow, Parameter, Policy, TenantStats
from kvasir.memory import Memory
from kvasir.model import KvType, LayerSpec, Model, ModelSpec, Quality, Rope
from kvasir.sequence import (
    Footprint,
    Hints,
    Published,
    Sequence,
    Snapshot,
    Step,
    TimelinePoint,
    begin_many,
    commit_many,
)
from kvasir.session import Lease, LeaseMember, PrefixForm, Prompt, Session, digest_file
from kvasir.views import KeptRun, LayerView, RecentBlock, Shape, Visible

__all__ = [
    "ClosedError", "Code", "DeadlineExceededError", "Device", "DeviceRows",
    "FailedPreconditionError", "Footprint", "Hints", "InspectedRow", "InvalidArgumentError",
    "KeptRun", "KvType", "KvasirError", "LayerSpec",
    "LayerView", "Lease", "LeaseMember", "Memory", "Model", "ModelSpec", "NotFoundError",
    "Parameter", "PermissionDeniedError", "Policy", "PrefixForm", "Prompt", "Published", "Quality",
    "RecentBlock", "ResourceExhaustedError", "Rope", "Sequence", "Session", "Shape", "Snapshot",
    "Step", "TenantStats", "TimelinePoint", "UnavailableError", "Visible", "begin_many",
    "commit_many", "digest_file",
]
