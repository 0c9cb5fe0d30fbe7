"""Processes, as the rest of the product uses them: functions on a connection of the caller's transaction.

Each writes state and event together. See `running` (what a run does), `asking` (questions), `wishes` (what people
want) and `tending` (what nobody does by itself).
"""

from tenantsync.processes.asking import answer, ask
from tenantsync.processes.event_types import PayloadRefused
from tenantsync.processes.running import (
    begin,
    cancel_here,
    complete,
    create,
    fail,
    finish_step,
    hand_back,
    pause_here,
    progress,
    renew,
    start_step,
)
from tenantsync.processes.tending import catch_up, tend
from tenantsync.processes.values import (
    AlreadyAnswered,
    AnswerRefused,
    Held,
    InvalidAnswer,
    MoveRefused,
    NewQuestion,
    NotFound,
    ProcessLost,
    ProcessUnknown,
    Wish,
)
from tenantsync.processes.wishes import cancel, pause, resume

__all__ = [
    "AlreadyAnswered",
    "AnswerRefused",
    "Held",
    "InvalidAnswer",
    "MoveRefused",
    "NewQuestion",
    "NotFound",
    "PayloadRefused",
    "ProcessLost",
    "ProcessUnknown",
    "Wish",
    "answer",
    "ask",
    "begin",
    "cancel",
    "cancel_here",
    "catch_up",
    "complete",
    "create",
    "fail",
    "finish_step",
    "hand_back",
    "pause",
    "pause_here",
    "progress",
    "renew",
    "resume",
    "start_step",
    "tend",
]
