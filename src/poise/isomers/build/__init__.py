"""Isomer sets from a user's own problems, retold by a teacher and kept only if the logic stays."""

from .build import Summary, finish, open_journal, tell_all
from .checks import Limits
from .journal import JournalError
from .local import LocalTeacher
from .problems import SourceProblem, read_problems
from .retell import Plan
from .teachers import EndpointTeacher, RefusedRequest, Teacher, TeacherError

__all__ = [
    "EndpointTeacher",
    "JournalError",
    "Limits",
    "LocalTeacher",
    "Plan",
    "RefusedRequest",
    "SourceProblem",
    "Summary",
    "Teacher",
    "TeacherError",
    "finish",
    "open_journal",
    "read_problems",
    "tell_all",
]
