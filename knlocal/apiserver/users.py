"""Users of the API, as authentication.k8s.io tells them apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from knlocal.control import rbac
from knlocal.resources.base import Obj

ADMIN = "kubernetes-admin"
MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"


@dataclass(frozen=True, slots=True)
class User:
    """Who a request is from, as `UserInfo` of authentication.k8s.io has it."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def is_admin(self) -> bool:
        return MASTERS in self.groups

    def to_info(self) -> Obj:
        return {
            "username": self.name,
            **({"uid": self.uid} if self.uid else {}),
            **({"groups": list(self.groups)} if self.groups else {}),
            **({"extra": dict(self.extra)} if self.extra else {}),
        }


ADMIN_USER = User(ADMIN, groups=(MASTERS, AUTHENTICATED))


def service_account_user(namespace: str, name: str, uid: str = "") -> User:
    user = rbac.service_account(namespace, name)
    return User(user, uid, rbac.groups_of(user))
