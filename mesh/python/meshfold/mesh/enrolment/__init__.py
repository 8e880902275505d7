"""How a node comes to its identity, grants and login: locally, or by a join token."""

from meshfold.mesh.enrolment.attenuate import attenuate_from
from meshfold.mesh.enrolment.authority_folder import AuthorityFolder, RootLock
from meshfold.mesh.enrolment.kit import Enrolment, EnrolmentStore
from meshfold.mesh.enrolment.local import (
    capabilities_for,
    enrol_locally,
    identity_of,
    keep_grant,
    local_identity,
    local_voters,
)
from meshfold.mesh.enrolment.member_folder import MemberFolder

__all__ = (
    "AuthorityFolder",
    "Enrolment",
    "EnrolmentStore",
    "MemberFolder",
    "RootLock",
    "attenuate_from",
    "capabilities_for",
    "enrol_locally",
    "identity_of",
    "keep_grant",
    "local_identity",
    "local_voters",
)
