"""Isomer sets from a user's own problems, retold by a teacher and kept only if the logic stays."""

from .build import Summary, finish, open_journal, tell_all
from .checks import Limits, review
from .journal import Journal, JournalError, Outcome
from .local import LocalTeacher
from .problems import SourceProblem, read_problems
from .prompts import MalformedReply, Retelling, make_messages, parse_reply
from .retell import Plan
from .signature import Signature, overlap, read_signature
from .teachers import EndpointTeacher, RefusedRequest, Teacher, TeacherError

__all__ = [
    "EndpointTeacher",
    "Journal",
    "JournalError",
    "Limits",
    "LocalTeacher",
    "MalformedReply",
    "Outcome",
    "Plan",
    "RefusedRequest",
    "Retelling",
    "Signature",
    "SourceProblem",
    "Summary",
    "Teacher",
    "TeacherError",
    "finish",
    "make_messages",
    "open_journal",
    "overlap",
    "parse_reply",
    "read_problems",
    "read_signature",
    "review",
    "tell_all",
]
