"""The grants a node knows and the decisions they give (S32). Default deny.

Invariants: only a chain that holds enters; the policy epoch never goes back; a decision from the cache is the one that
would be made now - the cache dies with every new grant and policy, and an entry with the grant it rests on.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meshfold.core import Address
from meshfold.core.errors import FrameRejected, GrantDenied, GrantExpired, GrantRevoked, SecurityError
from meshfold.core.ports import Clock, Decision
from meshfold.core.registry import Action
from meshfold.security.capability import Capability, matches
from meshfold.security.caveat import CaveatKind
from meshfold.security.grant import Grant
from meshfold.security.identity import SKEW_MS, Identity

__all__ = ("GrantBook", "Policy")

HOLDERS_MAX: Final = 4096
GRANTS_EACH_MAX: Final = 64
DECISIONS_MAX: Final = 16_384
#: Chains known not to hold: shown again they cost a hash and no signature.
REFUSED_MAX: Final = 4096
#: Rules that no later moment mends; `time` may.
_LASTING: Final = frozenset(("sig", "attenuation", "depth", "delegate", "cluster", "root", "key"))
_NEVER_NS: Final = 2**63
#: Told of each decision that was made anew, and of each denial: (principal, action, address, decision).
Decided = Callable[[bytes, Action, Address, Decision], None]


@dataclass(frozen=True)
class Policy:
    """Which grants no longer hold: hashes of links, and public keys. The epoch only rises."""

    epoch: int
    revoked: frozenset[bytes]


class GrantBook:
    """Verified grants by holder; answers `decide` and `require`. Implements `AccessDecider`."""

    def __init__(
        self,
        cluster: bytes,
        roots: frozenset[bytes],
        *,
        clock: Clock,
        directory: Callable[[bytes], Identity | None] = lambda tag: None,
        decided: Decided | None = None,
    ) -> None:
        self._cluster = cluster
        self._roots = roots
        #: the wall clock, by the shorter way where there is one: it is asked with every decision
        self._wall_ns: Callable[[], int] = getattr(clock, "wall_ns", None) or (lambda: clock.now()[0])
        self._directory = directory
        self._decided = decided
        self._grants: dict[bytes, dict[bytes, Grant]] = {}
        self._decisions: dict[tuple[bytes, int, str], tuple[Decision, int]] = {}
        self._refused: OrderedDict[bytes, tuple[bytes, FrameRejected]] = OrderedDict()
        self.policy = Policy(0, frozenset())
        #: chains whose signatures were checked
        self.verifications = 0

    def add(self, grant: Grant, now_ms: int) -> None:
        """Verify and keep a grant.

        :raises FrameRejected: if it does not hold, or a bound is reached (`limit`)
        """
        held = self._grants.get(grant.tag)
        if held is not None and grant.hash in held and held[grant.hash].raw == grant.raw:
            return
        self._verify(grant, now_ms)
        if held is None:
            if len(self._grants) >= HOLDERS_MAX:
                raise FrameRejected("limit", "too many holders of grants")
            held = self._grants[grant.tag] = {}
        if len(held) >= GRANTS_EACH_MAX:
            self._forget_expired(held)
        if len(held) >= GRANTS_EACH_MAX:
            raise FrameRejected("limit", "too many grants of one holder")
        held[grant.hash] = grant
        self._decisions.clear()

    def _verify(self, grant: Grant, now_ms: int) -> None:
        name = hashlib.sha256(grant.raw).digest()
        known = self._refused.get(name)
        if known is not None:
            raise FrameRejected(known[1].reason, known[1].detail)
        if grant.links[0].issuer_pub in self._roots:
            self.verifications += 1
        try:
            grant.verify(cluster=self._cluster, roots=self._roots, now_ms=now_ms)
        except FrameRejected as error:
            if error.reason in _LASTING:
                self._refused[name] = grant.tag, error
                if len(self._refused) > REFUSED_MAX:
                    self._refused.popitem(last=False)
            raise

    def _forget_expired(self, held: dict[bytes, Grant]) -> None:
        for grant_hash in [key for key, grant in held.items() if self._fault(grant) is not None]:
            del held[grant_hash]

    def set_policy(self, policy: Policy) -> None:
        """Take a newer policy; an older one is refused with reason `policy`."""
        if policy.epoch < self.policy.epoch:
            raise FrameRejected("policy", "an older policy epoch")
        self.policy = policy
        self._decisions.clear()

    def holders(self) -> list[bytes]:
        """Tags of everyone whose grants are held."""
        return list(self._grants)

    def grants_of(self, tag: bytes) -> list[Grant]:
        """Grants of a holder that hold now."""
        return [grant for grant in self._grants.get(tag, {}).values() if self._fault(grant) is None]

    def _fault(self, grant: Grant) -> str | None:
        """Why a verified chain does not hold now: the link, and the rule."""
        revoked = self.policy.revoked
        for number, link in enumerate(grant.links, 1):
            if link.hash in revoked or link.subject_pub in revoked or link.issuer_pub in revoked:
                where = "" if number == len(grant.links) else f" by its link {number} of {len(grant.links)}"
                return f"revoked{where}"
        now_ms = self._wall_ns() // 1_000_000
        for number, link in enumerate(grant.links, 1):
            if now_ms > link.not_after_ms + SKEW_MS:
                return (
                    f"expired by its link {number} of {len(grant.links)}"
                    if number < len(grant.links)
                    else "expired"
                )
        return None

    def decide(self, principal: bytes, action: Action, address: Address) -> Decision:
        """Say whether the holder may take the action on the address now, and which grant or lack of one decides."""
        key = principal, action._value_, address.text
        hit = self._decisions.get(key)
        if hit is not None and self._wall_ns() < hit[1]:
            if self._decided is not None and not hit[0].allowed:
                self._decided(principal, action, address, hit[0])
            return hit[0]
        found = self._decide(principal, action, address)
        if self._decided is not None:
            self._decided(principal, action, address, found[0])
        if len(self._decisions) >= DECISIONS_MAX:
            self._decisions.clear()
        self._decisions[key] = found
        return found[0]

    def _decide(self, principal: bytes, action: Action, address: Address) -> tuple[Decision, int]:
        """The decision, and until when it holds in ns."""
        reasons: list[str] = []
        for grant in self._grants.get(principal, {}).values():
            name = f"grant {grant.hash.hex()[:12]}"
            for capability in grant.capabilities:
                if not capability.actions & action or not matches(capability.pattern, address):
                    continue
                fault = self._fault(grant)
                if fault is None:
                    place = f", link {len(grant.links)} of {len(grant.links)}" if len(grant.links) > 1 else ""
                    because = f"{name}{place} allows {capability.pattern}"
                    until_ms = min(link.not_after_ms for link in grant.links) + SKEW_MS
                    return (
                        Decision(True, because, grant.hash, _limits(capability)),
                        (until_ms + 1) * 1_000_000,
                    )
                reasons.append(f"{name} is {fault}")
        for tag, error in self._refused.values():
            if tag == principal:
                reasons.append(f"a grant shown for it does not hold ({error.reason}, {error.detail})")
        because = reasons[0] if reasons else f"no grant with {action.name} covers {address.text}"
        return Decision(False, because), _NEVER_NS

    def require(self, principal: bytes, action: Action, address: Address) -> Decision:
        """The decision, with the grant and its limits, if the action is allowed.

        :raises GrantDenied: naming principal, action, route and what would allow it
        :raises GrantExpired: if the grant that would allow it has expired
        :raises GrantRevoked: if it was revoked
        """
        decision = self.decide(principal, action, address)
        if decision.allowed:
            return decision
        identity = self._directory(principal)
        name = identity.name if identity is not None else principal.hex()
        kind: type[SecurityError] = GrantDenied
        if " is revoked" in decision.because:
            kind = GrantRevoked
        elif " is expired" in decision.because:
            kind = GrantExpired
        raise kind(
            f"{name} may not {action.name} {address.short}: {decision.because}",
            fix=f"a grant would allow it: meshfold grant issue {name} {address.short} --action {action.name}",
            principal=name,
            action=action.name,
            route=address.short,
            because=decision.because,
        )

    def fingerprint(self) -> bytes:
        """A digest of what is held and in force: a refused grant or policy leaves it as it is."""
        held = sorted(key for grants in self._grants.values() for key in grants)
        state = repr((held, self.policy.epoch, sorted(self.policy.revoked)))
        return hashlib.sha256(state.encode()).digest()


def _limits(capability: Capability) -> tuple[tuple[int, int], ...]:
    return tuple(
        (int(caveat.kind), caveat.limit)
        for caveat in capability.caveats
        if caveat.kind is not CaveatKind.EPOCHS
    )
